"""What a search found of one deployment, in words."""

from reports.checks.examine import mark_text, marks_of
from reports.data import Run
from reports.measures import plural
from reports.verdicts.searches import Capacity, slo_metrics


def search_words(run: Run, found: Capacity) -> str:
    """Return `11 users ▲ 1 on each of 3 starts (12 users, 12 users, 11 users)`, or why it is not known."""
    by_start = f" ({', '.join(answer.words for answer in found.answers)})" if found.answers[1:] else ""
    if found.measured is None:
        return f"not known{by_start}: {found.why}"
    marks = mark_text(marks_of(run, found.cells_at_highest, *slo_metrics(run)))
    at = f"not known: {found.why}; {found.group.load} as measured" if found.level is None else found.words
    return " ".join(filter(None, (at, marks, on_each(run, found)))) + by_start


def on_each(run: Run, found: Capacity) -> str:
    unit, count = "start" if run.is_restarted(found.deployment) else "block", len(found.answers)
    return f"on each of {plural(count, unit)}" if count > 1 else f"on one {unit}"
