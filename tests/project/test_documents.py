"""The project's Markdown files: what they link to within the repository is there."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from places import ROOT

# Made or fetched; not ours to keep.
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
    """Paths within the repository that a text links to, or shows as a picture."""
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
