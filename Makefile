# Two commands do everything: `make run` and `make test`. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXAMPLE := results/example

.PHONY: install run test check report-example clean

install: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

run: install
	$(BIN)/bench run scenario=chat_multi_turn

test: install
	$(BIN)/bench install llama_cpp --quiet
	$(BIN)/bench prepare quantization=gguf-q4_k_m,gguf-q8_0 --quiet
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# A real run's report, and the screenshot of it that the README shows (needs Chromium).
report-example: install
	rm -rf $(EXAMPLE)
	$(BIN)/bench run scenario=chat_multi_turn --output $(EXAMPLE)
	chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
	  --disable-component-update --disable-sync --hide-scrollbars --window-size=1280,1400 \
	  --virtual-time-budget=5000 --screenshot=docs/report.png file://$(CURDIR)/$(EXAMPLE)/report.html

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
