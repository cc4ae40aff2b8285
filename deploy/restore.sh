#!/usr/bin/env bash
# Put a backup of deploy/backup.sh into an empty compose stack, and start it. It refuses a stack that
# holds anything, a damaged backup, one of a newer version, and another data key than the backup's.
# usage: deploy/restore.sh FOLDER   (DOCKER=podman ...)
set -euo pipefail
source=$(realpath "${1:?the folder of the backup}")
cd "$(dirname "$(realpath "$0")")/.."
compose() { "${DOCKER:-docker}" compose "$@"; }
fail() { echo "restore: $*" >&2; exit 1; }
in_api() { compose run --rm --no-deps -T api python -I -c "$(cat deploy/bucket.py)" "$@"; }
query() { compose exec -T postgres psql --username=gliaforge --dbname=gliaforge -XAtc "$1" </dev/null; }
told() { sed -n "s/^$1 //p" "$source/manifest.txt"; }

[ -s "$source/SHA256SUMS" ] || fail "$source is no backup"
(cd "$source" && sha256sum --check --quiet SHA256SUMS) || fail "$source is damaged"
[ "$(told format)" = 1 ] || fail "$source has a format that this version does not know"

servers="postgres valkey seaweedfs"
running=$(compose ps --services --status running) || fail "the engine does not answer"
for service in $running; do
  case " $servers " in
    *" $service "*) ;;
    *) fail "$service is running: this stack is in use. To give it up: docker compose down -v" ;;
  esac
done
# shellcheck disable=SC2086 # they are three words
compose up --detach --wait $servers
wrong=$(in_api check "$(told revision)" "$(told data-key)" </dev/null 2>&1) || fail "$(tail -n 1 <<<"$wrong")"
tables=$(query "SELECT to_regclass('public.tenants')") || fail "the database does not answer"
if [ -n "$tables" ]; then
  [ "$(query 'SELECT count(*) FROM tenants')" = 0 ] || fail "the database is not empty"
fi
# The other way round than the backup: a row appears when its object is there.
stored=$(in_api load <"$source/objects.tar" 2>&1) || fail "$(tail -n 1 <<<"$stored")"
stored=$(grep -E '^[0-9]+ objects of [0-9]+ bytes$' <<<"$stored") || fail "the storage did not tell what it took"
[ "$stored" = "$(told stored)" ] || fail "stored $stored, not $(told stored)"
query 'DROP SCHEMA public CASCADE; CREATE SCHEMA public' >/dev/null 2>&1 ||
  fail "the empty tables could not be dropped"
compose exec -T postgres pg_restore --username=gliaforge --dbname=gliaforge --no-owner \
  --exit-on-error --single-transaction <"$source/database.dump" || fail "the database took no dump"
compose up --detach --wait
echo "restore: $(told created), $stored, the tables of revision $(told revision) and what came since" >&2
