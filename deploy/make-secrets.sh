#!/bin/sh
# Write the two secrets of a development cluster with random values, for their owner alone; what
# exists is never touched. Apply them as deploy/README.md says. usage: deploy/make-secrets.sh FOLDER
set -eu
folder=${1:?the folder for the two files, outside of any repository}
umask 077
mkdir -p "$folder"
if [ -e "$folder/gliaforge.secret" ] || [ -e "$folder/gliaforge-data-services.secret" ]; then
  echo "make-secrets: there are secrets in $folder, which are kept" >&2
  exit 0
fi
random() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
postgres=$(random)
valkey=$(random)
cat >"$folder/gliaforge.secret" <<END
GLIAFORGE_DATABASE_URL=postgresql+psycopg://gliaforge:$postgres@postgres:5432/gliaforge
GLIAFORGE_BROKER_URL=redis://:$valkey@valkey:6379/0
GLIAFORGE_S3_ACCESS_KEY=$(random)
GLIAFORGE_S3_SECRET_KEY=$(random)
GLIAFORGE_DATA_KEY=$(random)
END
cat >"$folder/gliaforge-data-services.secret" <<END
POSTGRES_PASSWORD=$postgres
VALKEY_PASSWORD=$valkey
END
echo "make-secrets: wrote two files to $folder" >&2
