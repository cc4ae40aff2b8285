#!/bin/sh
# Build both images at the version of pyproject.toml, labelled with the revision and when it was made.
# Needs Docker with BuildKit. usage: deploy/build.sh [OPTION OF docker build ...]
#   TORCH_INDEX, PYTHON_IMAGE  as in .env.example     SOURCE         where the code lives, for a label
#   GLIAFORGE_TAG              another tag            TARGETS        "api worker" unless it is given
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}
# Of a revision, the time of its commit: the same revision has the same labels.
created=${CREATED:-$(TZ=UTC git log -1 --date=iso-strict-local --format=%cd 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)}
if [ -n "$revision" ] && [ -n "$(git status --porcelain 2>/dev/null)" ]; then
  revision=$revision-modified
fi
. deploy/build-settings
[ -z "${PYTHON_IMAGE:-}" ] || set -- --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" "$@"
for target in ${TARGETS:-api worker}; do
  echo "build: gliaforge-$target:${GLIAFORGE_TAG:-$version}" >&2
  if [ "$target" = worker ] && [ "${TORCH_INDEX+given}" ]; then
    set -- --build-arg "TORCH_INDEX=$TORCH_INDEX" "$@"
  fi
  DOCKER_BUILDKIT=1 "${DOCKER:-docker}" build --target "$target" \
    --build-arg "VERSION=$version" --build-arg "SOURCE=${SOURCE:-}" \
    --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
    --tag "gliaforge-$target:${GLIAFORGE_TAG:-$version}" "$@" .
done
