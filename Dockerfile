# Two images of one distribution: `api` has neither torch nor numpy, `worker` has both.
#
#   docker build --target api    -t gliaforge-api:0.1.0    .
#   docker build --target worker -t gliaforge-worker:0.1.0 .
#
# or, with labels that say of which revision and when: deploy/build.sh
#
# TORCH_INDEX is the package index that torch comes from, and nothing else does: that of its publisher's
# CPU builds, which save gigabytes, or one of its CUDA builds. Empty, it is pip's own index, whose
# Linux build brings CUDA along.
#
# PYTHON_IMAGE is the base of every stage, with Debian's apt for the first. Give it with a digest (python:3.11-slim@sha256:...) to have
# the same base again later, or as the name that your own registry has for it.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build-api
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# For strip, in this stage alone; any version does.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt ./
# The dependencies come first and alone, so that a change of the code does not install them again.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c 'import pathlib, tomllib; \
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]; \
extras = project["optional-dependencies"]; \
both = project["dependencies"] + extras["traces"]; \
pathlib.Path("api.txt").write_text("\n".join(both)); \
pathlib.Path("worker.txt").write_text("\n".join(extras["worker"]))' \
    && python -m venv --without-pip /opt/gliaforge \
    && pip --python /opt/gliaforge/bin/python install -c constraints.txt -r api.txt
# What nobody reads here: descriptions of services other than S3, sources of what is compiled, and what
# only debuggers read, 20 MB in three packages that are published with it.
RUN packages=$(echo /opt/gliaforge/lib/python3.*/site-packages) \
    && find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name s3 -exec rm -r {} + \
    && find "$packages" -type f -regex '.*\.\(pyi\|pyx\|pxd\|c\|h\)' -delete \
    && rm -r "$packages/sqlalchemy/testing" \
    && find "$packages/httptools" "$packages/sqlalchemy" "$packages/uvloop" -name '*.so' \
       -exec strip --strip-debug {} +

FROM build-api AS build-worker
ARG TORCH_INDEX=""
# What torch's CPU build asks for is pinned too, and is not the index's to answer.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$TORCH_INDEX" ]; then \
      pip --python /opt/gliaforge/bin/python install -c constraints.txt --no-deps \
        --index-url "$TORCH_INDEX" torch; \
    fi \
    && pip --python /opt/gliaforge/bin/python install -c constraints.txt -r worker.txt

FROM ${PYTHON_IMAGE} AS build-wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt hatchling
# The star lets the file be absent.
COPY pyproject.toml README.md LICENSE* ./
COPY app app
COPY worker worker
COPY models models
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /dist .

FROM build-api AS install-api
RUN --mount=type=bind,from=build-wheel,source=/dist,target=/dist \
    pip --python /opt/gliaforge/bin/python install --no-deps --no-index /dist/gliaforge-*.whl

FROM build-worker AS install-worker
RUN --mount=type=bind,from=build-wheel,source=/dist,target=/dist \
    pip --python /opt/gliaforge/bin/python install --no-deps --no-index /dist/gliaforge-*.whl

# What is in an image, as CycloneDX: docker build --target sbom-api --output FOLDER . (deploy/sbom.sh)
FROM install-api AS list-api
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /tools && /tools/bin/pip install -c constraints.txt cyclonedx-bom
RUN /tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
    --output-file /gliaforge-api.cdx.json /opt/gliaforge/bin/python

FROM install-worker AS list-worker
COPY --from=list-api /tools /tools
RUN /tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
    --output-file /gliaforge-worker.cdx.json /opt/gliaforge/bin/python

FROM scratch AS sbom-api
COPY --from=list-api /gliaforge-api.cdx.json /

FROM scratch AS sbom-worker
COPY --from=list-worker /gliaforge-worker.cdx.json /

FROM ${PYTHON_IMAGE} AS runtime
# A number, not a name, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 gliaforge \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /scratch \
       --shell /usr/sbin/nologin gliaforge \
    && install -d -o 10001 -g 10001 -m 0700 /scratch
ENV PATH=/opt/gliaforge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GLIAFORGE_SCRATCH=/scratch \
    HOME=/tmp
# `python -m` looks for modules in the working folder first: it must not be one that can be written.
WORKDIR /opt/gliaforge
USER 10001:10001

FROM runtime AS api
COPY --from=install-api /opt/gliaforge /opt/gliaforge
ARG VERSION=0.1.0
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="gliaforge-api" \
      org.opencontainers.image.description="The REST API of Gliaforge, its scheduler and its migrations" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Gliaforge" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["gliaforge", "api", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS worker
# What the NVIDIA runtime puts into a container that asks for a GPU. Which GPUs it gets is not said
# here: a CPU worker of the same image must get none.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HOME=/scratch
COPY --from=install-worker /opt/gliaforge /opt/gliaforge
ARG VERSION=0.1.0
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="gliaforge-worker" \
      org.opencontainers.image.description="The workers of Gliaforge, with torch" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Gliaforge" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# Touched by the loop that takes messages; what the worker calls itself is the end of the name.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=4 \
    CMD ["sh", "-c", "find /scratch/alive-* -mmin -1 | grep -q ."]
CMD ["python", "-m", "worker", "--help"]
