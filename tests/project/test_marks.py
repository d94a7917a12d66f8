"""Every test is run by some target of the Makefile, whatever its marks."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from live_engines import FILES
from places import ROOT, TESTS


@cache
def runs() -> list[tuple[str, tuple[Path, ...]]]:
    """Return the -m expression and the paths of each pytest in the Makefile, and of `make test-engines`."""
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    values = dict(re.findall(r"^(BUILT|HERE) := (.*)$", makefile, re.MULTILINE))
    found = [("engines", tuple(TESTS / file for files in FILES.values() for file in files))]
    for command in re.findall(r"-m pytest ([^;&\n]*)", makefile):
        for name in ("HERE", "BUILT"):
            command = command.replace(f"$({name})", values[name])
        [(quoted, word)] = re.findall(r" -m (?:'([^']*)'|(\w+))", f" {command}")
        folders = tuple(ROOT / path for path in re.findall(r"(?<= )tests/[\w./-]+", command))
        found.append((quoted or word, folders or (TESTS,)))
    return found


@cache
def alone() -> frozenset[str]:
    """Return the files that conftest.py marks. Importing it would set Hypothesis's profile again."""
    [names] = re.findall(r'^ALONE = frozenset\(\s*"""([^"]*)"""', (TESTS / "conftest.py").read_text(), re.M)
    return frozenset(names.split())


def holds(expression: str, marks: frozenset[str]) -> bool:
    """Return whether an -m expression selects a test with these marks. An empty one selects all."""

    def value(node: ast.expr) -> bool:
        match node:
            case ast.Name(name):
                return name in marks
            case ast.UnaryOp(ast.Not(), operand):
                return not value(operand)
            case ast.BoolOp(operator, parts):
                return (all if isinstance(operator, ast.And) else any)(value(part) for part in parts)
        raise ValueError(ast.dump(node))

    return not expression or value(ast.parse(expression.strip(), mode="eval").body)


def marks_of(node: ast.AST) -> frozenset[str]:
    """Return the marks of a decorator except those of single parameters. `given` marks a test, too."""
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark":
        return frozenset({node.attr})
    if isinstance(node, ast.Name) and node.id == "given":
        return frozenset({"hypothesis"})
    inner = [child for child in ast.iter_child_nodes(node) if not is_param(child)]
    return frozenset[str]().union(*map(marks_of, inner))


def is_param(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.param"


def marked_in(source: str, stem: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each test with its marks, and again with each mark that a parameter in its file has."""
    tree = ast.parse(source)
    whole = frozenset({"alone"} if stem in alone() else ())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            whole |= marks_of(node.value)
    of_params = {marks_of(node) for node in ast.walk(tree) if is_param(node)} | {frozenset[str]()}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            own = whole | frozenset[str]().union(*map(marks_of, node.decorator_list))
            yield from ((node.name, own | more) for more in of_params)


def is_run(path: Path, marks: frozenset[str]) -> bool:
    return any(
        holds(expression, marks) and any(path.is_relative_to(each) for each in places)
        for expression, places in runs()
    )


def test_every_test_is_run_by_some_target() -> None:
    files = [path for path in TESTS.rglob("test_*.py") if "data" not in path.relative_to(TESTS).parts]
    found = [
        (path, name, marks)
        for path in files
        for name, marks in marked_in(path.read_text(), path.stem.removeprefix("test_"))
    ]
    assert len(found) > 3000
    left_out = [
        f"{path.relative_to(ROOT)}::{name} {sorted(marks)}"
        for path, name, marks in found
        if not is_run(path, marks)
    ]
    assert left_out == []


@pytest.mark.parametrize(
    ("place", "marks", "expected"),
    [
        ("harness/test_x.py", set(), True),
        ("harness/test_x.py", {"alone"}, True),
        ("harness/test_x.py", {"long", "hypothesis"}, True),
        ("harness/test_x.py", {"faults"}, False),
        ("faults/test_x.py", {"faults_long"}, True),
        ("engines/tgi/test_tgi_live.py", {"engines"}, True),
        ("engines/tgi/test_other_live.py", {"engines"}, False),
        ("gpu/test_x.py", {"gpu", "long"}, True),
    ],
)
def test_what_runs_a_test_is_read_from_the_makefile(place: str, marks: set[str], expected: bool) -> None:
    assert is_run(TESTS / place, frozenset(marks)) is expected


def test_marks_of_a_file_a_function_and_a_parameter_are_read() -> None:
    source = (
        "pytestmark = [pytest.mark.live]\n"
        "@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.engines)])\n"
        "@given(y=integers())\n"
        "def test_it(x, y): ..."
    )
    own = frozenset({"alone", "live", "hypothesis", "parametrize"})
    assert set(marked_in(source, "clock")) == {("test_it", own), ("test_it", own | {"engines"})}
