#!/usr/bin/env bash
# Save the data key of .env in a file, encrypted with a passphrase, or put it back into .env from one.
# Keep that file apart from the backups. Both ask for the passphrase; without a terminal it is the
# first line of standard input. usage: deploy/data-key.sh save|restore FILE   (DOCKER=podman ...)
set -euo pipefail
what=${1:-}
file=$(realpath -m "${2:?usage: deploy/data-key.sh save|restore FILE}")
cd "$(dirname "$(realpath "$0")")/.."
umask 077
compose() { "${DOCKER:-docker}" compose "$@"; }
fail() { echo "data-key: $*" >&2; exit 1; }
in_api() { compose run --rm --no-deps -T api python -I -c "$(cat deploy/data_key.py)" "$@"; }
# What it prints is the key: no log may have it.
in_private() {
  image=$(compose config --images | grep gliaforge-api | head -n 1)
  "${DOCKER:-docker}" run --rm --interactive --log-driver none --network none --read-only \
    "$image" python -I -c "$(cat deploy/data_key.py)" "$@"
}
[ ! -t 0 ] || printf 'passphrase: ' >&2
IFS= read -rs passphrase || fail "there is no passphrase"
[ ! -t 0 ] || echo >&2

case $what in save) aim=$file ;; *) aim=.env ;; esac
made=$(mktemp "$aim.XXXXXX")
trap 'rm -f "$made"' EXIT
case $what in
  save)
    [ ! -e "$file" ] || fail "$file exists, and is kept"
    printf '%s\n' "$passphrase" | in_api seal >"$made" || fail "nothing was saved"
    mv "$made" "$file"
    echo "data-key: saved in $file" >&2
    ;;
  restore)
    # Under a running service, names that were sealed with the other key could not be read.
    running=$(compose ps --quiet) || fail "the engine does not answer"
    [ -z "$running" ] || fail "the stack is running; docker compose down comes first"
    key=$({ printf '%s\n' "$passphrase"; cat "$file"; } | in_private open) || fail ".env is as it was"
    [[ $key =~ ^[[:alnum:]+/=_.-]+$ ]] || fail "what was saved is no key"
    while IFS= read -r line; do
      case $line in DATA_KEY=*) line=DATA_KEY=$key ;; esac
      printf '%s\n' "$line"
    done <.env >"$made"
    grep -q '^DATA_KEY=' "$made" || printf 'DATA_KEY=%s\n' "$key" >>"$made"
    if ! cmp -s "$made" .env; then
      before=.env.before-$(date -u +%Y%m%dT%H%M%SZ)
      cp -p .env "$before"
      echo "data-key: the key that was there stays in $before" >&2
    fi
    mv "$made" .env
    echo "data-key: put into .env" >&2
    ;;
  *) fail "usage: deploy/data-key.sh save|restore FILE" ;;
esac
