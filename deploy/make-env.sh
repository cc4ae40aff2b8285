#!/bin/sh
# Write .env with random secrets, for its owner alone; an existing one is never touched.
# usage: deploy/make-env.sh [cpu|gpu]
set -eu
cd "$(dirname "$0")/.."
profile=${1:-cpu}
case $profile in
  cpu | gpu) ;;
  *) echo "make-env: the profile is cpu or gpu, not '$profile'" >&2; exit 2 ;;
esac
if [ -e .env ]; then
  echo "make-env: .env exists and is kept" >&2
  exit 0
fi
umask 077
partial=$(mktemp .env.XXXXXX)
trap 'rm -f "$partial"' EXIT
while IFS= read -r line; do
  case $line in
    COMPOSE_PROFILES=*) line=COMPOSE_PROFILES=$profile ;;
    *_PASSWORD= | *_KEY=) line=$line$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n') ;;
  esac
  printf '%s\n' "$line"
done <.env.example >"$partial"
# A link fails where a file is: whoever came first keeps theirs.
ln "$partial" .env
echo "make-env: wrote .env (profile $profile)" >&2
