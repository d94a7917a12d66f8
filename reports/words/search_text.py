"""What each deployment of a search keeps, for the terminal and for JSON."""

from typing import Any

from reports.checks.examine import mark_text, marks_of_capacity
from reports.data.run import Run
from reports.measures.written import plural
from reports.verdicts.searches import Capacity

_OF_A_START = ("start", "kept", "broken", "proven_kept", "proven_broken", "is_whole", "is_at_limit")


def words(run: Run, each: Capacity) -> str:
    """Return `11 users ▲ 1 on each of 3 starts (12 users, 12 users, 11 users)`, or why it is not known."""
    by_start = f" ({', '.join(answer.words for answer in each.answers)})" if len(each.answers) > 1 else ""
    if each.level is None:
        return f"not known{by_start}: {each.why}"
    said = " ".join(filter(None, (each.words, mark_text(marks_of_capacity(run, each)))))
    if by_start:
        unit = "start" if run.is_restarted(each.deployment) else "block"
        return f"{said} on each of {plural(len(each.answers), unit)}{by_start}"
    broken = next((t.load for t in each.answers[0].tried if t.level == each.answers[0].broken), None)
    return f"{said}, of one start{f' ({broken} broke the SLO)' if broken else ''}"


def as_plain(run: Run, each: Capacity) -> dict[str, Any]:
    """Return for JSON the highest load kept, why it is not known, and each start's bracket."""
    return {
        "deployment": each.deployment,
        "scenario": each.scenario,
        "load": each.group.family,
        "answer": each.level,
        "why": each.why,
        "is_least": each.is_least,
        "marks": [{"check": found.check, "title": found.title} for found in marks_of_capacity(run, each)],
        "starts": [
            {name: getattr(answer, name) for name in _OF_A_START}
            | {"trials": sum(len(tried.cells) for tried in answer.tried)}
            for answer in each.answers
        ],
    }
