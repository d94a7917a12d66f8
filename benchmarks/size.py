"""Prints how large the code is, and how quickly `bench list` answers: `python benchmarks/size.py [--json]`.

Counts what git tracks. A statement is a node of `ast.stmt`. A small module with one importer could be part
of the file that imports it.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTED = ("serving_bench", "harness", "engines", "scenarios", "reports", "tests")
SMALL_LINES = 60
COMMANDS = (("--help",), ("list", "engines"))
RUNS = 5
MARKUP = re.compile(r"write_report\(|\.report\(\)|\.body\b|markdown|\bpage\(")
# Names that do not say what they hold.
FILLERS = frozenset({"asked", "counted", "found", "held", "known", "made", "own", "said", "shown", "told"})
NUMBER = re.compile(r"(?<![\w#.-])\d")


def tracked(*folders: str) -> list[Path]:
    """Return the paths of the files that git tracks in these folders, from the root of the checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "--", *folders]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in said.splitlines() if (ROOT / line).is_file()]


def parsed(folders: Sequence[str]) -> dict[Path, tuple[str, ast.Module]]:
    """Return the text and the syntax tree of each Python file in these folders."""
    files = [path for path in tracked(*folders) if path.suffix == ".py"]
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in files}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


def statements(tree: ast.Module) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


def lines(text: str) -> int:
    return text.count("\n")


def imported(tree: ast.Module, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield each of our modules that a tree imports, whether by `import a.b` or by `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in inner)


def numbers_read_out_of_markup(tree: ast.Module) -> list[str]:
    """Return the tests of a file that look for a number in a page or a Markdown text.

    An estimate: the test, or a function of the same file that it calls, makes markup, and one of its
    assertions has a text with a number in it.
    """
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    makes = {name for name, node in functions.items() if MARKUP.search(ast.unparse(node))}
    found = []
    for name, node in functions.items():
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        names |= {argument.arg for argument in node.args.args} | {name}
        constants = (
            each.value
            for check in ast.walk(node)
            if isinstance(check, ast.Assert)
            for each in ast.walk(check.test)
            if isinstance(each, ast.Constant)
        )
        has_number = any(isinstance(each, str) and NUMBER.search(each) for each in constants)
        if name.startswith("test_") and has_number and makes & names:
            found.append(name)
    return found


def small_with_one_importer(files: Mapping[Path, tuple[str, ast.Module]]) -> list[str]:
    """Return the modules of under SMALL_LINES lines that exactly one file imports. Packages do not count."""
    modules = {".".join(path.with_suffix("").parts): path for path in files if path.name != "__init__.py"}
    importers = Counter(name for _, tree in files.values() for name in set(imported(tree, modules)))
    return sorted(
        str(path)
        for name, path in modules.items()
        if importers[name] == 1 and lines(files[path][0]) < SMALL_LINES and "inside" not in path.parts
    )


def fullest(files: Iterable[Path], top: str) -> tuple[str, int]:
    """Return the folder below `top` that has the most Python files of its own, and how many."""
    (folder, count), *_ = Counter(path.parent for path in files if path.parts[0] == top).most_common(1)
    return str(folder), count


def callbacks(files: Mapping[Path, tuple[str, ast.Module]]) -> list[str]:
    """Return each parameter and each field of a dataclass whose annotation has Callable or an alias of it."""
    modules = {_module(path): path for path in files}
    homes = {name: _homes(files[path][1]) for name, path in modules.items()}
    aliases, before = {"collections.abc.Callable"}, 0
    while before < len(aliases):
        before = len(aliases)
        for module, path in modules.items():
            for node in files[path][1].body:
                if isinstance(node, ast.Assign) and aliases & _named(node.value, module, homes):
                    aliases |= {f"{module}.{each.id}" for each in node.targets if isinstance(each, ast.Name)}
    return [
        f"{path}:{each.lineno}"
        for module, path in modules.items()
        for each in _annotations(files[path][1])
        if aliases & _named(each, module, homes)
    ]


def _module(path: Path) -> str:
    """Return the name by which a file is imported: the folders are linked into serving_bench."""
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith(("serving_bench", "tests")) else f"serving_bench.{name}"


def fillers_percent(trees: Iterable[ast.Module]) -> float:
    """Return the share of FILLERS among all bindings: arguments, assignments and targets of loops."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [node.arg for node in nodes if isinstance(node, ast.arg)]
    names += [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return round(100 * sum(name in FILLERS for name in names) / len(names), 1)


def _homes(tree: ast.Module) -> dict[str, str]:
    """Return where each name comes from that a module imports, and the modules whose names it takes all."""
    found = dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = alias.asname or (f"* of {node.module}" if alias.name == "*" else alias.name)
                found[name] = node.module if alias.name == "*" else f"{node.module}.{alias.name}"
    return found


def _named(node: ast.expr, module: str, homes: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return the names in an expression as `module.name`, by each module that may define them."""
    found = set[str]()
    for each in ast.walk(node):
        if isinstance(each, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(each).partition(".")
            left = [homes[module].get(first, f"{module}.{first}") + dot + rest]
            while left:
                found.add(home := left.pop())
                package, _, name = home.rpartition(".")
                passed_on = homes.get(package, {})
                left += [passed_on[name]] if name in passed_on else []
                left += [f"{of}.{name}" for star, of in passed_on.items() if star.startswith("* of ")]
    return found


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.ClassDef) and any(
            "dataclass" in ast.unparse(e) for e in node.decorator_list
        ):
            yield from (each.annotation for each in node.body if isinstance(each, ast.AnnAssign))


def wall_s(arguments: Sequence[str]) -> float:
    """Return the median wall time of `bench` with these arguments, in seconds."""
    command = [str(Path(sys.executable).with_name("bench")), *arguments]
    took = []
    for _ in range(RUNS):
        begun_s = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        took.append(time.perf_counter() - begun_s)
    return statistics.median(took)


def measured() -> dict[str, object]:
    files = parsed(COUNTED)
    of = {folder: [each for path, each in files.items() if path.parts[0] == folder] for folder in COUNTED}
    house = {path: each for path, each in files.items() if path.parts[0] in ("harness", "engines")}
    native = [path for path in tracked("engines") if path.suffix in (".c", ".h")]
    return {
        "statements": {folder: sum(statements(tree) for _, tree in each) for folder, each in of.items()},
        "lines": {folder: sum(lines(text) for text, _ in each) for folder, each in of.items()},
        "harness and engines": {
            "statements": sum(statements(tree) for _, tree in house.values()),
            "lines": sum(lines(text) for text, _ in house.values()),
            "modules": len(house),
        },
        "callbacks as parameters": len(callbacks({k: v for k, v in files.items() if k.parts[0] != "tests"})),
        "fillers among names, %": {
            where: fillers_percent(
                tree for path, (_, tree) in files.items() if (path.parts[0] == "tests") is (where == "tests")
            )
            for where in ("code", "tests")
        },
        "tests that read a number out of HTML or Markdown": sum(
            len(numbers_read_out_of_markup(tree))
            for path, (_, tree) in files.items()
            if path.is_relative_to("tests/reports")
        ),
        "lines of C": sum(lines((ROOT / path).read_text()) for path in native),
        f"modules under {SMALL_LINES} lines with one importer": small_with_one_importer(house),
        "most files in one folder": dict(fullest(files, folder) for folder in COUNTED),
        f"wall time, s, median of {RUNS}": {
            f"bench {' '.join(arguments)}": round(wall_s(arguments), 2) for arguments in COMMANDS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    found = measured()
    if parser.parse_args().json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number:,}" for key, number in value.items())
        elif isinstance(value, list):
            value = ", ".join([str(len(value)), *value])
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
