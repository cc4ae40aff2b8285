# Two images of one distribution: `api` has neither torch nor numpy, `worker` has both.
#
#   docker build --target api    -t gliaforge-api:0.1.0    .
#   docker build --target worker -t gliaforge-worker:0.1.0 .
#
# TORCH_INDEX names one more package index, which is preferred for torch alone: its builds carry a
# local version (2.13.0+cpu, 2.13.0+cu...), and pip takes that for higher. Empty, torch comes from
# pip's own index.

FROM python:3.11-slim AS build-api
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
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

FROM build-api AS build-worker
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/gliaforge/bin/python install -c constraints.txt -r worker.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}

FROM python:3.11-slim AS build-wheel
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

FROM python:3.11-slim AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Gliaforge"
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
LABEL org.opencontainers.image.title="gliaforge-api" \
      org.opencontainers.image.description="The REST API of Gliaforge and its migrations"
COPY --from=install-api /opt/gliaforge /opt/gliaforge
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["gliaforge", "api", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS worker
LABEL org.opencontainers.image.title="gliaforge-worker" \
      org.opencontainers.image.description="The workers and the scheduler of Gliaforge, with torch"
# What the NVIDIA runtime puts into a container that asks for a GPU. Which GPUs it gets is not said
# here: a CPU worker of the same image must get none.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HOME=/scratch
COPY --from=install-worker /opt/gliaforge /opt/gliaforge
CMD ["python", "-m", "worker", "--help"]
