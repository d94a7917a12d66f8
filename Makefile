# `make run` and `make test` install what they need first. Needs Python 3.11+ and make. CONTRIBUTING.md lists all targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools

include docker/versions.env
comma := ,
BUILT := not engines and not docker and not scenarios and not faults and not fleet and not faults_long and not gpu
HERE := $(BUILT) and not long
BUILD = docker build $(if $(PIP_CONF),--secret id=pip$(comma)src=$(PIP_CONF)) --build-arg BASE=$(BASE_IMAGE)

.PHONY: install run served test check size test-long test-scenarios test-faults test-faults-long test-fleet test-gpu gpu-wheels test-engines test-ollama test-tgi test-docker images sglang-cpu-env report-example gallery peers clean

install: $(READY)

$(READY): requirements.lock pyproject.toml
	@.ci/environment $(PYTHON) $(VENV) requirements.lock $(READY)

# Adds what tests and checks need. This lock has the same versions of everything that bench needs.
$(TOOLS): $(READY) requirements-dev.lock
	@.ci/environment $(PYTHON) $(VENV) requirements-dev.lock $(TOOLS)

run: install
	$(BIN)/bench run scenario=chat_multi_turn

# The default engine with the weights that tests serve.
served: install
	$(BIN)/bench install llama_cpp --quiet
	$(BIN)/bench prepare engine=llama_cpp quantization=fp16,gguf-q8_0,gguf-q4_0 --quiet

# Four at a time also on 2 processors, since many tests wait for servers. With PYTHONDONTWRITEBYTECODE in the environment each of
# hundreds of processes would compile all modules again.
test: export PYTHONDONTWRITEBYTECODE :=
test: served $(TOOLS)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m 'not alone and $(HERE)'; shared=$$?; \
	  $(BIN)/python -m pytest -m 'alone and $(HERE)' && exit $$shared

# 10 minutes: first the page in a real browser (kinds of runs, accessibility by axe-core, hostile text, filters, paper, pictures; needs
# Chromium with its driver), then 10,000 damaged files and answers of each kind, then, one by one, verdicts, searches, memory and
# conversions on servers that run for long. FUZZ_SEED=n tries other files and answers.
test-long: export PYTHONDONTWRITEBYTECODE :=
test-long: served $(TOOLS)
	$(BIN)/python -m serving_bench.harness.install.packages $(BIN)/python --no-deps --require-hashes -r tests/axe.lock
	$(BIN)/python -m pytest -n 3 --dist loadfile -m 'long and browser'; pages=$$?; \
	  $(BIN)/python -m pytest -n 3 --dist load --hypothesis-profile=long $(if $(FUZZ_SEED),--hypothesis-seed=$(FUZZ_SEED)) -m hypothesis; files=$$?; \
	  $(BIN)/python -m pytest -m 'long and not browser and $(BUILT)' && exit $$((pages + files))

# Plays every scenario on llama.cpp with the default model, up to 4,096 tokens deep. 4 minutes.
test-scenarios: served $(TOOLS)
	$(BIN)/python -m pytest -m scenarios tests/scenarios

# All of tests/faults, including what `make test` runs: bench killed and signalled at random moments, servers that answer wrongly,
# damaged directories, full disks, races. FAULTS_SEED chooses the moments. 15 minutes. `test-faults-long` kills 100 times and
# gives each damaged directory to every command; it takes an hour or more.
FAULTS_SEED ?= 7
test-faults: served $(TOOLS)
	FAULTS_SEED=$(FAULTS_SEED) $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not faults_long' tests/faults

test-faults-long: served $(TOOLS)
	FAULTS_SEED=$(FAULTS_SEED) $(BIN)/python -m pytest -n 2 --dist worksteal -m '' tests/faults

# Installs each engine that this machine can run, makes its weights, runs its live tests, and prints time and disk: about an
# hour and 12 GB on 2 cores. SGLang's tests are skipped without `make sglang-cpu-env`.
test-engines: $(TOOLS)
	$(BIN)/python tests/live_engines.py

# Measures the repeats of a run on clusters of Ray nodes, each node in its own network namespace (needs root, unshare and ip), and in a
# SLURM array on this machine (Debian: slurm-wlm; skipped without). Under 20 minutes.
test-fleet: $(TOOLS)
	$(BIN)/python -m serving_bench.harness.install.packages $(BIN)/python --no-deps --require-hashes -r tests/ray.lock
	$(BIN)/python -m pytest -m fleet tests/fleet

# Tests what bench sees of the first NVIDIA GPU, and a comparison on it. It is ended after 8 minutes. PYTHON needs PyTorch for that GPU
# and transformers. Where there is no package index, WHEELS=dir has what `make gpu-wheels` made before with the same Python version.
GPU_MAKING ?= 2m
GPU_TESTING ?= 6m
within = timeout --foreground -s INT -k 20 $($(1)) $(3) || { code=$$?; case $$code in 124|137) \
  echo "test-gpu: $(2) took longer than $($(1)) and was ended; $(1)=TIME gives it longer" >&2; esac; exit $$code; }
test-gpu:
	@$(call within,GPU_MAKING,making its environment,$(PYTHON) tests/gpu/over_torch.py $(VENV)-gpu $(WHEELS))
	@TORCH_ENVIRONMENT=$(VENV)-gpu $(call within,GPU_TESTING,testing,$(VENV)-gpu/bin/python -m pytest -m gpu -rs -W default tests/gpu)

gpu-wheels:
	$(PYTHON) tests/gpu/over_torch.py --wheels $(WHEELS)

# Tests a real Ollama beside llama.cpp: the one on PATH or OLLAMA_PROGRAM=/path/ollama, and a running one at
# OLLAMA_URL=http://HOST:PORT/v1 with OLLAMA_MODEL=NAME. Tests of what is missing are skipped, with the reason.
test-ollama: served $(TOOLS)
	$(BIN)/python -m pytest -m engines tests/engines/ollama/test_ollama_live.py

# Tests a real TGI: the text-generation-launcher on PATH or TGI_PROGRAM=/path/to/it, and a running router at
# TGI_URL=http://HOST:PORT/v1. Tests of what is missing are skipped, with the reason.
test-tgi: install $(TOOLS)
	$(BIN)/python -m pytest -m engines -rs tests/engines/tgi/test_tgi_live.py

# Makes an SGLang for the CPU without its kernels: a fixture for tests, not part of `bench install`. DIR=... puts it elsewhere.
sglang-cpu-env: install
	$(BIN)/python tests/sglang_cpu/make_environment.py $(DIR)

# Builds this project's own images (docker/README.md). PIP_CONF=file: your pip settings; WHEELS=dir: wheels made before.
images:
	$(BUILD) -f docker/harness.Dockerfile -t $(HARNESS_IMAGE) .
	$(BUILD) $(if $(WHEELS),--build-context wheels=$(WHEELS)) -f docker/llama_cpp.Dockerfile -t $(LLAMA_CPP_CPU_IMAGE) .
	$(BUILD) $(if $(WHEELS),--build-context wheels=$(WHEELS)) --build-arg HARNESS=$(HARNESS_IMAGE) -f docker/vllm.Dockerfile \
	  -t $(VLLM_CPU_IMAGE) .

# Tests real containers, as root on Debian with docker.io docker-cli docker-buildx docker-compose debootstrap. It starts its own
# Docker daemon and makes a base image without a registry: about 10 minutes and 20 GB, plus the time to compile llama.cpp.
test-docker: $(TOOLS)
	$(BIN)/bench prepare engine=llama_cpp,vllm quantization=bf16,gguf-q4_0 --quiet
	$(BIN)/python -m pytest -m docker tests/harness/servers/test_container_live.py

check: $(TOOLS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

# Prints how large the code is, by folder, and how quickly `bench list` answers.
size: install
	$(BIN)/python benchmarks/size.py

# Takes the README's screenshots of the example reports (needs Chromium).
SHOT = chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --window-size=1280,760 --virtual-time-budget=9000
report-example:
	$(SHOT) --screenshot=docs/report.png file://$(CURDIR)/docs/examples/llama-cpp-quantizations.html
	$(SHOT) --screenshot=docs/engines.png file://$(CURDIR)/docs/examples/four-engines.html

# Fills docs/gallery/ with a picture of each section of the example report, or of REPORT=file.html (needs Chromium with its driver).
REPORT ?= docs/examples/llama-cpp-quantizations.html
gallery: $(TOOLS)
	$(BIN)/python tests/support/runs/make_gallery.py $(REPORT)

# Measures bench beside AIPerf, GuideLLM, vllm bench serve, SGLang's two clients and Locust, each in its own environment in the
# cache (20 GB, once): 12 to 19 minutes, on a quiet machine. PEERS="--only aiperf,bench --streams 16" measures less.
peers: install
	$(BIN)/bench install reference --program native --quiet
	PYTHONPATH=benchmarks $(BIN)/python benchmarks/peers/side_by_side.py $(PEERS)

clean:
	rm -rf $(VENV) $(VENV)-gpu build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
