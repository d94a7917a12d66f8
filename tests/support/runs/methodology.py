"""Reads tables of METHODOLOGY.md."""

from __future__ import annotations

from places import ROOT

_TEXT = ROOT / "METHODOLOGY.md"


def lines() -> list[str]:
    return _TEXT.read_text(encoding="utf-8").splitlines()


def rows_below(head: str) -> list[list[str]]:
    """The cells of each row of the one table with this head."""
    text = lines()
    assert text.count(head) == 1, head
    rows = []
    for line in text[text.index(head) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
