"""What the first screen says against its own numbers: reasons to distrust them, and what is missing."""

import re
from collections.abc import Iterator, Sequence

from reports.checks.examine import examine, findings_of
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.measures.selftest import Reached, known_steps, ms, named, nearest_step, reached, ttft_error_s
from reports.measures.written import plural
from reports.page.markup import Html, details, join, paragraph, tag
from reports.verdicts.load_cases import told_first
from reports.words.said import clipped

# These fit on a screen; the others are folded.
_TOLD = 5
_TEXT_AT_MOST, _REASON_AT_MOST = 120, 70
_SKIPS_TOLD = 3


def doubts(run: Run) -> Html:
    """Return the reasons to distrust, worst first, the rest of them folded; nothing where there is none."""
    found = findings_of(run)
    if not found:
        return Html("")
    items = [tag("li", _link(each), f": {_short(each.text)}") for each in found[:_TOLD]]
    rest = [tag("li", _link(each)) for each in found[_TOLD:]]
    clean = plural(sum(not seen for seen in examine(run).values()), "check")
    more = [details(f"{len(rest)} more, and {clean} that found nothing", tag("ul", *rest))] if rest else []
    title = f"{plural(len(found), 'reason')} to distrust this"
    return tag("div", tag("h2", title), tag("ul", *items), *more, class_="why-box doubts")


def _link(finding: Finding) -> Html:
    return tag("a", finding.title, href=f"#distrust-{finding.check}")


def _short(text: str) -> str:
    """Return the beginning of what was seen, up to where a sentence, a clause or a list may end."""
    first = text.partition(". ")[0].partition("; ")[0].rstrip(".")
    ends = [found.start() for found in re.finditer(r", |: | \(", first)] if len(first) > _TEXT_AT_MOST else []
    heads = [head for end in ends if len(head := first[:end]) <= _TEXT_AT_MOST]
    whole = [head for head in heads if head.count("(") == head.count(")")]
    return f"{whole[-1] if whole else first}."


def left_out(run: Run) -> Html:
    """Return combinations that were not run, and bench's own error at the load of the table."""
    parts = [part for part in (_skipped(run), _own_error(run)) if part]
    return paragraph(join(part for each in parts for part in (each, " "))) if parts else Html("")


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
    """Return it by the self-test of the machine; None where it was not measured."""
    loads = list(_loads(run))
    if run.selftest is None or not known_steps(run.selftest) or not loads:
        return None
    step = nearest_step(run.selftest, max(loads, key=lambda load: load.total_per_s))
    median_s, p99_s = ttft_error_s(step)
    link = tag("a", "bench's own error", href="#own-error")
    said = f" at this load: TTFT p50 {ms(median_s)} ms, p99 {ms(p99_s)} ms (self-test of this machine, "
    return join([link, f"{said}{named(step)})."])


def _loads(run: Run) -> Iterator[Reached]:
    cells = [cell for case in told_first(run) for group in case.groups for cell in group.counted]
    for cell in cells or [cell for cell in run.planned_cells if cell.counts]:
        if load := reached(run, cell):
            yield load
