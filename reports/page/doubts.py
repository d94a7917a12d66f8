"""What the first screen says against its own numbers: the reasons to distrust them, in short, and what is not
on it."""

import re
from collections.abc import Sequence

from reports.checks.examine import findings_of
from reports.checks.finding import Finding, by_weight
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.selftest import Reached, known_steps, ms, named, nearest_step, reached, ttft_error_s
from reports.measures.written import plural
from reports.page.markup import Html, join, paragraph, tag
from reports.verdicts.load_cases import told_first
from reports.words.said import clipped

# As many as fit on a screen with their texts; of the others there are the titles.
TOLD = 4
_TEXT_AT_LEAST, _TEXT_AT_MOST = 25, 110
_SKIPS_TOLD = 3
_REASON_AT_MOST = 70


def doubts(run: Run) -> Html:
    """Those that mark a number first, as in the section; nothing where no check found one."""
    found = by_weight(findings_of(run))
    if not found:
        return Html("")
    told, rest = found[:TOLD], found[TOLD:]
    items = [tag("li", _link(each), f": {_short(each)}") for each in told]
    if rest:
        links = [part for each in rest for part in (Html("; "), _link(each))][1:]
        items.append(tag("li", f"{len(rest)} more: ", *links, class_="rest"))
    title = f"{plural(len(found), 'reason')} to distrust these numbers"
    return tag("div", tag("h2", title), tag("ul", *items), class_="why-box doubts")


def _link(finding: Finding) -> Html:
    return tag("a", finding.title, href=f"#distrust-{finding.check}")


def _short(finding: Finding) -> str:
    """The beginning of what was seen, as far as it is whole: no sentence is cut between two words."""
    first = finding.text.partition(". ")[0].partition("; ")[0].rstrip(".")
    if len(first) <= _TEXT_AT_MOST:
        return f"{first}."
    ends = [found.start() for found in re.finditer(r", |: | \(", first)]
    heads = [head for end in ends if (head := first[:end]).count("(") == head.count(")")]
    fit = [head for head in heads if _TEXT_AT_LEAST <= len(head) <= _TEXT_AT_MOST]
    return f"{fit[-1] if fit else first}."


# --- what is not there -----------------------------------------------------------------------------


def left_out(run: Run) -> Html:
    """Combinations that were not run, and bench's own error at the table's load; nothing for neither."""
    parts = [part for part in (_skipped(run), _own_error(run)) if part]
    spaced = [part for each in parts for part in (Html(" "), each)][1:]
    return paragraph(join(spaced)) if parts else Html("")


def _skipped(run: Run) -> Html | None:
    by_reason: dict[str, list[str]] = {}
    for skip in run.record.plan.skips:
        by_reason.setdefault(skip.reason, []).append(skip.what)
    if not by_reason:
        return None
    said = [_reason(whats, reason) for reason, whats in by_reason.items()]
    more = f" and {plural(len(said) - _SKIPS_TOLD, 'other reason')}" if len(said) > _SKIPS_TOLD else ""
    return join([tag("a", "Not run", href="#skipped"), f": {'; '.join(said[:_SKIPS_TOLD])}{more}."])


def _reason(whats: Sequence[str], reason: str) -> str:
    names = ", ".join(whats[:3]) + (f" and {len(whats) - 3} more" if len(whats) > 3 else "")
    return f"{names} ({clipped(reason.rstrip('.'), _REASON_AT_MOST)})"


def _own_error(run: Run) -> Html | None:
    """By the self-test of the machine, at the load of the table; None where it was not measured."""
    selftest = run.selftest
    if selftest is None or not known_steps(selftest):
        return None
    loads = [load for cell in _told_cells(run) if (load := reached(run, cell))]
    if not loads:
        return None
    step = nearest_step(selftest, max(loads, key=_chunks_per_s))
    median_s, p99_s = ttft_error_s(step)
    return join(
        [
            tag("a", "bench's own error", href="#client"),
            f" at this load: TTFT p50 {ms(median_s)} ms, p99 {ms(p99_s)} ms (self-test of this machine, "
            f"{named(step)}).",
        ]
    )


def _chunks_per_s(load: Reached) -> float:
    return load.total_per_s


def _told_cells(run: Run) -> list[Cell]:
    groups = [group for case in told_first(run) for group in case.groups]
    counted = [cell for group in groups for cell in group.counted]
    return counted or [cell for cell in run.planned_cells if cell.counts]
