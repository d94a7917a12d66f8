"""The rules between the folders (ARCHITECTURE.md), checked on the syntax tree."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from conftest import ALONE, LONGEST
from places import ROOT, TESTS

OURS = {"harness", "engines", "scenarios", "reports"}
HOMES = {
    "hydra": ("harness/settings/overrides.py",),
    "yaml": ("harness/settings/yaml_files.py",),
    "pynvml": ("harness/sampling/gpu.py",),
    "psutil": ("harness/sampling/", "harness/processes/"),
    "locust": ("harness/load/",),
    "gevent": ("harness/load/",),
    "pyarrow": ("harness/store/", "reports/"),
    "tokenizers": ("harness/store/tokenizer.py",),
    "pandas": ("reports/",),
    "plotly": ("reports/",),
    "numpy": ("reports/",),
    "scipy": ("reports/",),
    "typer": ("harness/cli/",),
    "rich": ("harness/cli/",),
    "huggingface_hub": ("engines/inside/",),
    "prometheus_client": ("harness/servers/scrape.py",),
    "uv": ("harness/install/packages.py",),
    "ray": ("harness/fleet/on_ray.py",),
}
# Only in engines/inside, where an engine's own environment has them.
ENGINES_OWN = {"vllm", "sglang", "llama_cpp", "xllamacpp", "torch", "transformers", "awq", "gguf", "lm_eval"}
# The packages of harness. Each imports only those below it; packages of one line may import each other.
LEVELS = (
    ("cli",),
    ("run",),
    ("fleet",),
    ("selftest", "quality", "imports"),
    ("plan", "servers", "load", "sampling", "store", "install", "fit", "describe"),
    ("claims",),
    ("settings", "processes"),
    ("contracts", "errors", "plugins", "whole_files", "foreign_files", "cache"),
)
# The same for reports.
REPORTS = ("outputs", "page", "two_runs", "words", "checks", "verdicts", "measures", "data", "stats")


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Return the modules that each of our files imports, `a.b` for `from a import b` where b is a module."""
    names = [
        path.relative_to(ROOT).as_posix()
        for folder in sorted(OURS)
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    return {name: frozenset(_imports(name)) for name in names}


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            yield from (_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield _ours(inner if _is_module(inner) else node.module)


def _ours(module: str) -> str:
    return module.removeprefix("serving_bench.")


@cache
def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def top(module: str) -> str:
    return module.partition(".")[0]


def is_inside(name: str) -> bool:
    return name.startswith("engines/inside/")


def is_shared(module: str) -> bool:
    files = ("contracts", "errors", "plugins", "whole_files", "foreign_files")
    return module in {f"harness.{each}" for each in files} or module.startswith("harness.contracts.")


def strays(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield each file in these folders with each module that it imports; engines/inside is left out."""
    for name, modules in imports().items():
        if name.startswith(folders) and not is_inside(name):
            for module in sorted(modules):
                yield name, module


def test_each_library_is_imported_in_its_home_only() -> None:
    assert [
        (name, module)
        for name, module in strays(*OURS)
        if (homes := HOMES.get(top(module))) and not name.startswith(homes)
    ] == []


def test_engines_own_packages_stay_inside() -> None:
    assert [(name, module) for name, module in strays(*OURS) if top(module) in ENGINES_OWN] == []


def test_programs_inside_an_environment_import_nothing_of_ours() -> None:
    found = [(name, module) for name, modules in imports().items() if is_inside(name) for module in modules]
    assert [pair for pair in found if top(pair[1]) in OURS] == []


def test_engines_and_scenarios_see_the_contracts_and_themselves() -> None:
    wrong = []
    for name, module in strays("engines/", "scenarios/"):
        if top(module) in OURS:
            is_allowed = top(module) == top(name.replace("/", ".")) or is_shared(module)
        else:
            is_allowed = top(module) in _STANDARD or name.startswith(HOMES.get(top(module), ("no home",)))
        if not is_allowed:
            wrong.append((name, module))
    assert wrong == []


def test_an_engine_knows_no_other_engine() -> None:
    """engines/common and engines/model know no engine either."""
    engines = {path.name for path in (ROOT / "engines").iterdir() if (path / "engine.py").is_file()}
    assert [
        (name, module)
        for name, module in strays(*(f"engines/{room}/" for room in {"common", "model"} | engines))
        if module.startswith("engines.") and module.split(".")[1] in engines - {name.split("/")[1]}
    ] == []


def test_reports_read_the_store_alone() -> None:
    found = [(name, module) for name, module in strays("reports/") if top(module) in OURS - {"reports"}]
    assert [each for each in found if not (is_shared(each[1]) or each[1].startswith("harness.store"))] == []


def test_harness_knows_engines_and_scenarios_by_their_dicts() -> None:
    found = [pair for pair in strays("harness/") if not pair[0].startswith("harness/cli/")]
    others = [pair for pair in found if top(pair[1]) in {"engines", "scenarios", "reports"}]
    assert [pair for pair in others if pair[1] not in {"engines", "scenarios"}] == []


def test_what_everyone_may_import_imports_the_standard_library_only() -> None:
    files = (f"harness/{each}.py" for each in ("errors", "plugins", "whole_files", "foreign_files"))
    found = strays("harness/contracts/", *files)
    assert [pair for pair in found if not (top(pair[1]) in _STANDARD or is_shared(pair[1]))] == []


def test_no_module_is_known_by_two_names() -> None:
    """Whatever `bench` imports for a command and the report, in a checkout that is on the path as well."""
    modules = [
        path[:-3].replace("/", ".") for path in imports() if path.startswith(("harness/cli/", "reports/"))
    ]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "for name, module in sys.modules.items():\n"
        "    if getattr(module, '__file__', None): print(name, module.__file__)"
    )
    argv = [
        sys.executable,
        "-c",
        code,
        *(f"serving_bench.{name.removesuffix('.__init__')}" for name in modules),
    ]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    files = {
        line.split(" ", 1)[0]: Path(line.split(" ", 1)[1]).resolve() for line in done.stdout.splitlines()
    }
    ours = {
        name: path for name, path in files.items() if path.is_relative_to(ROOT) and ".venv" not in path.parts
    }
    assert len(ours) > 200
    assert len(set(ours.values())) == len(ours)
    assert {name.partition(".")[0] for name in ours} == {"serving_bench"}


def test_locust_is_imported_by_the_load_process_only() -> None:
    """Importing Locust patches the standard library, so nothing that bench itself imports may import it."""
    patched = {"worker", "users", "locustfile"}
    found = {
        name.rpartition("/")[2].removesuffix(".py")
        for name, module in strays(*OURS)
        if top(module) == "locust"
    }
    assert found <= patched


def test_packages_of_harness_import_only_what_is_below_them() -> None:
    level = {package: number for number, packages in enumerate(LEVELS) for package in packages}
    wrong = [
        (name, module)
        for name, module in strays("harness/")
        if module.startswith("harness.") and name.count("/") > 1
        if level[module.split(".")[1]] < level[name.split("/")[1]]
    ]
    assert wrong == []


def test_packages_of_reports_import_only_what_is_below_them() -> None:
    wrong = [
        (name, module)
        for name, module in strays("reports/")
        if module.startswith("reports.") and name.count("/") > 1
        if REPORTS.index(module.split(".")[1]) < REPORTS.index(name.split("/")[1])
    ]
    assert wrong == []


def test_no_circle_between_packages_or_files() -> None:
    files = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): {
            module for module in modules if top(module) in OURS
        }
        for name, modules in imports().items()
    }
    packages: dict[str, set[str]] = {}
    for name, module in strays(*OURS):
        if name.count("/") > 1 and top(module) in OURS:
            here, there = ".".join(name.split("/")[:2]), ".".join(module.split(".")[:2])
            packages.setdefault(here, set()).update({there} - {here})
    assert circles(packages) == []
    assert circles(files) == []


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return a circle, in order, for each node that a path from it reaches again."""
    found, done = [], set[str]()

    def visit(node: str, way: list[str]) -> None:
        if node in way:
            found.append([*way[way.index(node) :], node])
        elif node not in done:
            for other in sorted(arrows.get(node, ())):
                visit(other, [*way, node])
            done.add(node)

    for node in sorted(arrows):
        visit(node, [])
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_the_tests_that_run_alone_or_first_are_there() -> None:
    named = sorted([*ALONE, *LONGEST])
    assert [name for name in named if not list(TESTS.rglob(f"test_{name}.py"))] == []
    assert not ALONE & set(LONGEST)


_STANDARD = sys.stdlib_module_names
