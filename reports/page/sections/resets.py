"""How the prefix cache was emptied before each cell, by deployment: a part of the environment section."""

from collections.abc import Sequence

from harness.contracts import CacheReset
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.written import NOTHING, several
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, Row, paragraph, table, tag

_WORDS = {
    "reset": "emptied, and checked",
    "unchecked": "emptied, not checked",
    "failed": "not emptied",
    "none": "left as it was",
}
_NOTE = (
    "So that no cell finds prompts of an earlier one. Checked: a prompt that was cached before is sent once "
    "more after the reset, and was read anew; beside it how much of it was cached then."
)


def resets(run: Run) -> list[Html]:
    """Return a row per deployment and outcome, or nothing if no cell came so far."""
    found: dict[tuple[str, str, str | None], list[tuple[Cell, CacheReset]]] = {}
    for label in run.deployments:
        for cell in run.planned_cells:
            reset = cell.record.cache_reset if cell.record and cell.label == label else None
            if reset is not None:
                found.setdefault((label, reset.how, reset.note), []).append((cell, reset))
    if not found:
        return []
    rows = [_row(run, label, how, note, each) for (label, how, note), each in found.items()]
    columns = ["deployment", "prefix cache", "cells", "cached after it", "why"]
    return [
        tag("h3", "Prefix cache before each cell"),
        paragraph(_NOTE),
        table(columns, rows, "words", "Prefix cache before each cell"),
    ]


def _row(run: Run, label: str, how: str, note: str | None, each: Sequence[tuple[Cell, CacheReset]]) -> Row:
    numbers = [f"{cell.number:03d}" for cell, _ in each]
    of_all = sum(cell.label == label and cell.record is not None for cell in run.planned_cells)
    which = f"all {of_all}" if len(each) == of_all else several(numbers)
    cells: list[Html | str] = [named(looks(run)[label]), _WORDS[how], which, _cached(each), note or NOTHING]
    return Row(cells, Of(label))


def _cached(each: Sequence[tuple[Cell, CacheReset]]) -> str:
    """The most that a probe found, of its tokens."""
    known = [
        (reset.cached_tokens, reset.prompt_tokens)
        for _, reset in each
        if reset.cached_tokens is not None and reset.prompt_tokens is not None
    ]
    if not known:
        return NOTHING
    cached, of = max(known, key=lambda pair: pair[0] / max(pair[1], 1))
    return f"{cached:,} of {of:,} tokens"
