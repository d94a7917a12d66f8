# bench itself. It measures servers that it attaches to, or that it starts in this container (`bench install` works
# in it). Build from the project's root:
#   docker build -f docker/harness.Dockerfile -t serving-bench/harness:0.1.0 .
# If pip needs settings of its own: --secret id=pip,src=/path/to/pip.conf
ARG BASE=python:3.11-slim-trixie

FROM ${BASE} AS build
COPY requirements.lock .ci/build.txt /opt/serving-bench/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes \
    -r /opt/serving-bench/requirements.lock -r /opt/serving-bench/build.txt
COPY . /opt/serving-bench
# Editable, so that docker/ and engines/ are beside each other as in a checkout; built by the setuptools of build.txt.
RUN /opt/venv/bin/pip install --no-cache-dir --no-index --no-deps --no-build-isolation --editable /opt/serving-bench

FROM ${BASE}
COPY --from=build /opt /opt
# Any user may run it (docker run --user), so that files in a mounted results directory belong to that user.
RUN useradd --uid 10001 --create-home bench \
    && install --directory --mode=1777 /cache /work
LABEL org.opencontainers.image.version=0.1.0
ENV PATH=/opt/venv/bin:$PATH BENCH_CACHE_DIR=/cache PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["bench"]
CMD ["--help"]
