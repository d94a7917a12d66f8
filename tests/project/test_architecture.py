"""The rules between the folders, held on the syntax tree (ARCHITECTURE.md)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ALONE, LONGEST
from places import ROOT

OURS = {"harness", "engines", "scenarios", "reports"}
SHARED = {"harness.contracts", "harness.errors"}
HOMES = {
    "hydra": {"harness/settings/overrides.py"},
    "yaml": {"harness/settings/overrides.py"},
    "pynvml": {"harness/sampling/nvml.py"},
    "psutil": {
        "harness/sampling/host.py",
        "harness/sampling/process_tree.py",
        "harness/processes/watchdog.py",
    },
    "locust": {"harness/load/"},
    "gevent": {"harness/load/"},
    "orjson": {"harness/load/"},
    "pyarrow": {"harness/store/store.py", "harness/store/request_table.py", "reports/"},
    "tokenizers": {"harness/store/tokens.py"},
    "pandas": {"reports/"},
    "plotly": {"reports/"},
    "numpy": {"reports/"},
    "scipy": {"reports/"},
    "typer": {"harness/cli/app.py", "harness/commands/"},
    "rich": {
        "harness/cli/app.py",
        "harness/commands/",
        "harness/cli/show/compare_text.py",
        "harness/cli/show/fit_text.py",
        "harness/cli/show/gate_text.py",
        "harness/cli/show/listing.py",
        "harness/cli/progress/live.py",
        "harness/cli/progress/progress.py",
    },
    "huggingface_hub": {"engines/tgi/engine.py", "engines/weights/"},
    "prometheus_client": {"harness/servers/scrape.py"},
    "platformdirs": {"harness/install/install.py"},
}
# Only in engines/inside, where an engine's own environment has them.
ENGINES_OWN = {"vllm", "sglang", "llama_cpp", "xllamacpp", "torch", "transformers", "awq", "gguf"}
# The command line and what it prints may import anything.
COMMAND_LINE = (
    "harness/cli/app.py",
    "harness/commands/",
    "harness/cli/show/compare_text.py",
    "harness/cli/show/gate_text.py",
    "harness/cli/show/listing.py",
)


def sources() -> list[str]:
    found = (path for folder in sorted(OURS) for path in sorted((ROOT / folder).rglob("*.py")))
    return [path.relative_to(ROOT).as_posix() for path in found]


def imports(name: str) -> Iterator[str]:
    """Every module that a file imports, `a.b` for `from a import b` where that is a module of ours."""
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _is_module(inner) else node.module


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("name", [n for n in sources() if not n.startswith("engines/inside/")])
def test_each_library_is_imported_in_its_home_only(name: str) -> None:
    strays = [
        module
        for module in imports(name)
        if (homes := HOMES.get(top(module))) and not any(name.startswith(home) for home in homes)
    ]
    assert not strays


@pytest.mark.parametrize("name", sources())
def test_engines_own_packages_stay_inside(name: str) -> None:
    if not name.startswith("engines/inside/"):
        assert not [module for module in imports(name) if top(module) in ENGINES_OWN]


@pytest.mark.parametrize("name", [n for n in sources() if n.startswith(("engines/", "scenarios/"))])
def test_engines_and_scenarios_see_the_contracts_and_themselves(name: str) -> None:
    if name.startswith("engines/inside/"):
        return
    own = top(name.replace("/", "."))
    allowed = SHARED | {"harness"}
    for module in imports(name):
        if top(module) in OURS:
            assert top(module) == own or module in allowed, module
        elif name not in HOMES.get(top(module), ()):
            assert top(module) in sys.stdlib_module_names, module


@pytest.mark.parametrize("name", [n for n in sources() if n.startswith("engines/inside/")])
def test_programs_inside_an_environment_import_nothing_of_ours(name: str) -> None:
    assert not [module for module in imports(name) if top(module) in OURS]


@pytest.mark.parametrize("name", [n for n in sources() if n.startswith("reports/")])
def test_reports_read_the_store_alone(name: str) -> None:
    for module in imports(name):
        if top(module) in OURS - {"reports"}:
            assert module in SHARED | {"harness.store.store"}, module


@pytest.mark.parametrize("name", [n for n in sources() if n.startswith("harness/")])
def test_harness_knows_engines_and_scenarios_by_their_dicts(name: str) -> None:
    if name.startswith(COMMAND_LINE):
        return
    for module in imports(name):
        if top(module) in {"engines", "scenarios", "reports"}:
            assert module in {"engines", "scenarios"}, module


@pytest.mark.parametrize(
    "name", [n for n in sources() if n.startswith("harness/contracts/") or n == "harness/errors.py"]
)
def test_contracts_and_errors_import_the_standard_library_only(name: str) -> None:
    for module in imports(name):
        assert top(module) in sys.stdlib_module_names or module.startswith("harness.contracts"), module


def test_locust_is_imported_by_the_load_process_only() -> None:
    """Importing it patches the standard library: nothing that bench itself imports may pull it in."""
    patched = {f"harness/load/{name}.py" for name in ("play", "users", "locustfile")}
    for name in sources():
        if any(top(module) == "locust" for module in imports(name)):
            assert name in patched


def test_the_tests_that_run_alone_or_first_are_there() -> None:
    named = sorted([*ALONE, *LONGEST])
    assert [name for name in named if not Path(__file__).with_name(f"test_{name}.py").exists()] == []
    assert not ALONE & set(LONGEST)
