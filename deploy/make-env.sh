#!/bin/sh
# Write .env with random secrets, for its owner alone. An existing one is never touched; if it holds a
# placeholder, or lacks a secret, that is an error. usage: deploy/make-env.sh [cpu|gpu]
set -eu
cd "$(dirname "$0")/.."
profile=${1:-cpu}
case $profile in
  cpu | gpu) ;;
  *) echo "make-env: the profile is cpu or gpu, not '$profile'" >&2; exit 2 ;;
esac
if [ -e .env ]; then
  # As the settings do, which would stop the containers; a short one can be guessed.
  wrong=$(sed -n 's/^\([A-Z0-9_]*\(_PASSWORD\|_KEY\)\)=.*/\1/p' .env.example | while read -r name; do
    value=$(sed -n "s/^$name=//p" .env | tail -n 1 | tr -d "\"' ")
    case $value in
      *[Cc][Hh][Aa][Nn][Gg][Ee]* | *[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]* | *[Ss][Ee][Cc][Rr][Ee][Tt]* | \
        *[Ee][Xx][Aa][Mm][Pp][Ll][Ee]* | *[Pp][Ll][Aa][Cc][Ee][Hh][Oo][Ll][Dd][Ee][Rr]*) echo " $name" ;;
      ????????????????*) ;;
      *) echo " $name" ;;
    esac
  done | tr -d '\n')
  if [ -n "$wrong" ]; then
    echo "make-env: .env is kept, but these are placeholders, or shorter than 16 characters:$wrong" >&2
    exit 1
  fi
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
