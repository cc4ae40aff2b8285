#!/bin/sh
# Write what Python packages are in each image, as CycloneDX 1.6 JSON, made by cyclonedx-py in the
# build itself; of the system's packages tells the base image's publisher.
# usage: deploy/sbom.sh FOLDER [OPTION OF docker build ...]
set -eu
folder=$(realpath -m "${1:?the folder for gliaforge-api.cdx.json and gliaforge-worker.cdx.json}")
shift
cd "$(dirname "$0")/.."
. deploy/build-settings
[ -z "${PYTHON_IMAGE:-}" ] || set -- --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" "$@"
[ -z "${TORCH_INDEX+given}" ] || set -- --build-arg "TORCH_INDEX=$TORCH_INDEX" "$@"
for image in api worker; do
  DOCKER_BUILDKIT=1 "${DOCKER:-docker}" build --target "sbom-$image" --output "$folder" "$@" .
done
echo "sbom: wrote gliaforge-api.cdx.json and gliaforge-worker.cdx.json to $folder" >&2
