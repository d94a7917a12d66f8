"""What a search found in words: who keeps the SLO up to the highest load, and what each deployment keeps."""

from typing import Any

from reports.checks.examine import mark_text, marks_of_capacity
from reports.data.run import Run
from reports.measures.written import plural, several
from reports.verdicts.decisions import Decision
from reports.verdicts.searches import Answer, Capacity
from reports.words.said import HEADLINE_AT_MOST, Said, clipped
from reports.words.verdict_words import slo_words


def most_load(run: Run, made: Decision) -> Said:
    """Say which deployment alone keeps the SLO at the highest load, and which is next: no test is needed."""
    best, *others = made.capacities
    known = [f"{each.deployment} up to {each.words}" for each in others if each.level is not None]
    lead = f"Serve {best.deployment}" if len(made.case.groups) > 1 else best.deployment
    beside = f", next best {several(known)}" if known else ""
    if others and not known:
        beside = ", and no other is known to keep it at a load that was tried"
    text = f"It keeps the SLO ({slo_words(run.record.slo)}) up to {best.words}"
    starts = f" on each of {_starts(run, best)}" if len(best.answers) > 1 else ""
    short = f"{lead}: it keeps the SLO up to {best.words}{f', next best {known[0]}' if known else ''}"
    ordered = [each.deployment for each in made.capacities if each.level is not None]
    unordered = [label for label in made.left_out if label not in ordered]
    rest = f" Not compared: {several(unordered)}." if unordered else ""
    return Said(lead, f"{text}{starts}{beside}.{rest}", clipped(short, HEADLINE_AT_MOST))


def _starts(run: Run, each: Capacity) -> str:
    return plural(len(each.answers), "start" if run.is_restarted(each.deployment) else "block")


def words(run: Run, each: Capacity) -> str:
    """Return `11 users ▲ 1 on each of 3 starts (12 users, 12 users, 11 users)`, or why it is not known."""
    by_start = f" ({', '.join(answer.words for answer in each.answers)})" if len(each.answers) > 1 else ""
    if each.level is None:
        return f"not known{by_start}: {each.why}"
    said = " ".join(filter(None, (each.words, mark_text(marks_of_capacity(run, each)))))
    if by_start:
        return f"{said} on each of {_starts(run, each)}{by_start}"
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
        "starts": [_start_as_plain(answer) for answer in each.answers],
    }


def _start_as_plain(answer: Answer) -> dict[str, Any]:
    return {
        "start": answer.start,
        "kept": answer.kept,
        "broken": answer.broken,
        "proven_kept": answer.proven_kept,
        "proven_broken": answer.proven_broken,
        "is_whole": answer.is_whole,
        "is_at_limit": answer.is_at_limit,
        "trials": sum(len(tried.cells) for tried in answer.tried),
    }
