"""What is wrong with the cells that a table's row comes from: marks in words, their reasons in tooltips."""

from collections.abc import Mapping

from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.equal_work import work_of
from reports.page.markup import Html, join, tag

LEGEND = "▲ suspect, ✕ invalid or failed, ≠ other prompts."


def cell_marks(run: Run, group: Group) -> Html:
    said: list[Html] = []
    if why := work_of(run).per_token_only.get(group.key):
        said.append(_mark("▲", "per-token figures only", why, "warn"))
    starts: dict[tuple[str, str, str], dict[str, str | None]] = {}
    for cell in group.cells:
        if cell.status == "completed" and cell.validity == "valid":
            continue
        record = run.start_of(cell)
        start = start_title(run, record) if record else str(cell.planned.repeat + 1)
        reasons = starts.setdefault(_what(cell), {})
        # A search may have several windows of a start at one load.
        reasons[start] = "; ".join(dict.fromkeys(filter(None, (reasons.get(start), cell.reason)))) or None
    said += [_marked(what, reasons) for what, reasons in starts.items()]
    return join(said)


def _what(cell: Cell) -> tuple[str, str, str]:
    """Sign, word and kind of a cell that is not as it should be."""
    if cell.status != "completed":
        return "✕", cell.status, "bad"
    return ("▲", "suspect", "warn") if cell.validity == "suspect" else ("✕", cell.validity, "bad")


def _marked(what: tuple[str, str, str], reasons: Mapping[str, str | None]) -> Html:
    """`▲ starts 1, 3 suspect`, with each start's reason in the tooltip."""
    sign, word, kind = what
    if len(reasons) == 1:
        [(start, reason)] = reasons.items()
        return _mark(sign, f"start {start} {word}", reason, kind)
    each = [f"start {start}: {reason}" for start, reason in reasons.items() if reason]
    return _mark(sign, f"starts {', '.join(reasons)} {word}", "; ".join(each), kind)


def _mark(sign: str, words: str, reason: str | None, kind: str) -> Html:
    return tag("span", f"{sign} {words}", title=reason or words, class_=f"said {kind}")


def starts_that_count(group: Group) -> str:
    """`1 of 2`: the starts whose cells are in a row's values; a search may have several windows of each."""
    counted, all_of_them = ({cell.planned.repeat for cell in cells} for cells in (group.counted, group.cells))
    return f"{len(counted)} of {len(all_of_them)}"
