#!/usr/bin/env bash
# Back up the database and the bucket of the running compose stack, so that they fit each other.
# The API answers and trainings go on meanwhile; only the scheduler, which alone deletes what a row
# refers to, rests. The data key is not in it: see deploy/data-key.sh.
# usage: deploy/backup.sh FOLDER   (which must not exist yet; DOCKER=podman ...)
set -euo pipefail
target=$(realpath -m "${1:?the folder to make}")
cd "$(dirname "$(realpath "$0")")/.."
umask 077
compose() { "${DOCKER:-docker}" compose "$@"; }
fail() { echo "backup: $*" >&2; exit 1; }
# In the container that runs: the engine would write what a new one prints, patients, to its log.
in_api() { compose exec -T api python -I -c "$(cat deploy/bucket.py)" "$@"; }
query() { compose exec -T postgres psql --username=gliaforge --dbname=gliaforge -XAtc "$1" </dev/null; }

[ ! -e "$target" ] || fail "$target exists, and is kept"
partial=$target.partial
mkdir -p "$(dirname "$target")"
mkdir "$partial" || fail "another backup to $target is under way, or broke off: remove $partial"
rests=
finish() {
  rm -rf "$partial"
  # Not by compose, which would run the migration first, that of a version that may be rolled back.
  [ -z "$rests" ] || "${DOCKER:-docker}" start "$rests" >/dev/null || echo "backup: start the scheduler again" >&2
}
trap finish EXIT

revision=$(query 'SELECT version_num FROM alembic_version') || fail "the database does not answer"
rests=$(compose ps --quiet --status running scheduler)
[ -z "$rests" ] || "${DOCKER:-docker}" stop --time 60 "$rests" >/dev/null
# Rows first: an object without a row is harmless, a row without its object is not.
compose exec -T postgres pg_dump --username=gliaforge --format=custom --no-owner gliaforge \
  </dev/null >"$partial/database.dump"
stored=$({ in_api save </dev/null >"$partial/objects.tar"; } 2>&1) || fail "the storage: $stored"
stored=$(grep -E '^[0-9]+ objects of [0-9]+ bytes$' <<<"$stored") || fail "the storage did not tell what it saved"
key=$(in_api fingerprint </dev/null 2>/dev/null) || fail "the data key cannot be read"
cat >"$partial/manifest.txt" <<END
format 1
created $(date -u +%Y-%m-%dT%H:%M:%SZ)
revision $revision
data-key $key
stored $stored
END
(cd "$partial" && sha256sum database.dump objects.tar manifest.txt >SHA256SUMS)
sync "$partial"/*
mv "$partial" "$target"
echo "backup: $target holds the tables of revision $revision and $stored" >&2
