#!/bin/sh
# Start SeaweedFS closed: without credentials it is open to all, and its filer serves every object
# past the S3 rules unless it asks for tokens. Both files are made anew in memory at each start.
set -eu
umask 077
cd "$RUNTIME"
: "${S3_ACCESS_KEY:?}" "${S3_SECRET_KEY:?}" "${S3_BUCKET:?}"

printf '{"identities": [{"name": "gliaforge",
  "credentials": [{"accessKey": "%s", "secretKey": "%s"}],
  "actions": ["Read:%s", "Write:%s", "List:%s", "Tagging:%s"]}]}\n' \
  "$S3_ACCESS_KEY" "$S3_SECRET_KEY" "$S3_BUCKET" "$S3_BUCKET" "$S3_BUCKET" "$S3_BUCKET" >s3.json

for table in jwt.signing jwt.signing.read jwt.filer_signing jwt.filer_signing.read; do
  printf '[%s]\nkey = "%s"\n' "$table" "$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')"
done >security.toml

# Its parts talk to each other on loopback, which is what they advertise: the address of the
# container may change between two starts. A master that resumes is not its own leader for a moment,
# and volumes that ask meanwhile are missing for seconds. Each object is encrypted with a key of its
# own that is deleted with it: a deleted upload stays on the disk until its volume is compacted.
unset S3_ACCESS_KEY S3_SECRET_KEY
exec weed -logtostderr mini -ip=127.0.0.1 -ip.bind=0.0.0.0 -dir=/storage \
  -bucket="$S3_BUCKET" -s3.config=s3.json -s3.port=8333 -s3.autoCreateBucket=false \
  -s3.port.iceberg=0 -s3.port.lance=0 -webdav=false -admin.ui=false \
  -s3.encryptVolumeData=true -filer.encryptVolumeData=true \
  -master.port=9333 -master.telemetry=false -master.resumeState=false \
  -filer.port=8888 -volume.port=9340 -volume.preStopSeconds=0
