"""The project's Markdown files: every link within the repository leads to a file."""

import re
from urllib.parse import unquote

import pytest
from places import ROOT

# Made or fetched, not part of the project.
LEFT_OUT = {"results", "build", "shared", "node_modules"}
_CODE = re.compile(r"^(`{3,}).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|(?:src|href)=\"([^\"]+)\"")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#", re.IGNORECASE)


def documents() -> list[str]:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in LEFT_OUT]
    shown = [path for path in folders if not path.name.startswith(".")]
    found = [*ROOT.glob("*.md"), *(path for folder in shown for path in folder.rglob("*.md"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def links(markdown: str) -> list[str]:
    """Return the paths within the repository that a text links to, or shows as a picture."""
    targets = (found[1] or found[2] for found in _LINK.finditer(_CODE.sub("", markdown)))
    return [unquote(target.partition("#")[0]) for target in targets if not _ELSEWHERE.match(target)]


@pytest.mark.parametrize("name", documents())
def test_what_a_document_links_to_is_there(name: str) -> None:
    path = ROOT / name
    missing = [link for link in links(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()]
    assert missing == []


def test_links_are_found_but_not_in_code_or_elsewhere() -> None:
    kept = '[a](b.md#part) ![c](d%20e.png) <img src="f.png">'
    text = f"{kept} [g](https://h) `[i](j.md)` [k](#l)\n```\n[m](n)\n```\n"
    assert links(text) == ["b.md", "d e.png", "f.png"]


def test_the_documents_are_found() -> None:
    assert {"README.md", "ARCHITECTURE.md", "docs/python.md"} <= set(documents())


def test_the_table_of_make_has_its_targets() -> None:
    makefile, table = (ROOT / "Makefile").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    rules = re.findall(r"^([a-z][\w-]*):(?! export)", makefile, re.MULTILINE)
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert (
        sorted(rules)
        == sorted(phony.split())
        == sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE))
    )


def faults() -> list[list[str]]:
    """Return the rows of the table of faults: what goes wrong, what is seen, what is kept, the tests."""
    lines = (ROOT / "docs/faults.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("fault", "---")]


def test_each_fault_says_what_is_seen_and_kept_and_which_tests_hold_it() -> None:
    rows = faults()
    assert len(rows) > 70
    assert [row[0] for row in rows if len(row) != 4 or not all(row)] == []
    named = [(row[0], name) for row in rows for name in re.split(r",\s*", row[3])]
    missing = [each for each in named if not (ROOT / "tests" / each[1]).is_file()]
    assert missing == []
    assert [each for each in named if not re.fullmatch(r"(?:\w+/)*test_\w+\.py", each[1])] == []
