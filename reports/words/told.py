"""What the terminal, `--json` and the index of runs say of a run: its standing, its answer and its digest.

The decisions are those of the page (reports/verdicts/decisions.py). A standing tests nothing, so it spends no
look at the data. headline.json in a run's directory holds the digest and what it was made from, so that an
index of many runs need not read them again. It is made again when one of the run's records or DIGEST_VERSION
changes.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from serving_bench.harness.contracts import Standing, because
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.files import read_json
from serving_bench.harness.store.named_files import DIGEST_FILE
from serving_bench.harness.whole_files import PRIVATE, write_whole
from serving_bench.reports.checks.examine import findings_of, mark_text, marks_of
from serving_bench.reports.data import Group, Run, open_run
from serving_bench.reports.measures import (
    has_interval,
    mean_text,
    metric_of,
    plural,
    read_rates,
    several,
    shown,
    unit_of,
)
from serving_bench.reports.measures.quality import Quality, quality_of, task_scores
from serving_bench.reports.verdicts import SPEED, Capacity, Decision, decisions_of, slo_metrics, title_of_case
from serving_bench.reports.words import quality
from serving_bench.reports.words.answer import MEMORY, Said, answers_of, headline, lead_of, on_each
from serving_bench.reports.words.described import device, question
from serving_bench.reports.words.verdict_words import clipped, heading_of, ratio_words, title_of

COLUMNS = (SPEED, "ttft_s.p50", "tpot_s.p50", MEMORY)
_REASON_AT_MOST = 200
# From this ratio on, a lead is said as a ratio instead of a percentage.
_AS_RATIO = 2.0


def standings(run_dir: Path, repeats: int) -> tuple[Standing, ...]:
    """Return how each answer stands after `repeats` whole repeats; empty for a run of one deployment.

    Raises StoreError as open_run does.
    """
    run = open_run(run_dir)
    return tuple(_standing(run, made, repeats) for made in decisions_of(run) if len(run.deployments) > 1)


def _standing(run: Run, made: Decision, whole: int) -> Standing:
    where = f"{title_of(made.metric)} {title_of_case(run, made.case).replace('At', 'at', 1)}"
    # Repeats in which the machine was disturbed do not rank anyone.
    is_disturbed = bool(made.disturbed) and not made.used
    groups = () if is_disturbed else made.groups
    first, second, *_ = [*(group.deployment for group in groups), None, None]
    means = [made.value(run, group, made.metric).mean or 0.0 for group in groups[:2]]
    ratio, words = None, f"no {'repeat that counts' if is_disturbed else 'value'} yet ({where})"
    if first:
        words = f"only {first} has a value ({where})"
    if second and min(means) > 0 and not metric_of(made.metric).is_additive:
        ratio = means[0] / means[1] if metric_of(made.metric).better == "higher" else means[1] / means[0]
    if second:
        words = f"{first} {_lead_words(ratio)}, not yet decided (next {second}; {where})"
    if made.disturbed:
        repeats = plural(made.disturbed + made.repeats, "repeat")
        words += f"; the machine was busy or not fit in {made.disturbed} of {repeats}"
    if made.left_out:
        words += f"; not compared: {several(list(made.left_out))}"
    case = made.case
    return Standing(whole, case.scenario, case.model, case.load, made.metric, first, second, ratio, words)


def _lead_words(ratio: float | None) -> str:
    if ratio is None or ratio >= _AS_RATIO:
        return f"ahead, {ratio:.2f}x" if ratio else "ahead"
    share = f"{100 * (ratio - 1):.0f} %"
    return "level with the next" if share == "0 %" else f"ahead by {share}"


def told(run: Run) -> dict[str, Any]:
    """Return the answers with their tables, the reasons to distrust them, and the cells that do not count."""
    cells, record = run.planned_cells, run.record
    failed = [
        {
            "number": cell.number,
            "deployment": cell.label,
            "load": cell.load_label,
            "why": cell.reason and str(cell.reason),
        }
        for cell in cells
        if not cell.counts
    ]
    return {
        "answers": [_answer(run, *each) for each in zip_longest(answers_of(run), decisions_of(run))],
        "distrust": [
            {name: getattr(found, name) for name in ("check", "title", "text", "remedy", "command", "marks")}
            for found in findings_of(run)
        ],
        "standings": [asdict(each) for each in record.standings],
        "cells": {"planned": len(cells), "counted": len(cells) - len(failed), "failed": failed},
    }


def _answer(run: Run, said: Said, made: Decision | None) -> dict[str, Any]:
    words = {"sentence": f"{said.lead}. {said.text}".strip(), "unless": said.unless}
    words |= {"note": said.note, "advice": said.advice, "command": said.command}
    if made is None:
        return {**words, "kind": "none", "deployment": None, "rows": []}
    best = made.best if made.leader else None
    ratio = least = most = None
    if best and best.over[best.next].is_log:
        ratio, (_, least, most) = lead_of(made, best, best.next)[0], lead_of(made, best, best.nearest)
    return {
        **words,
        "kind": made.kind,
        "deployment": made.served,
        "scenario": made.case.scenario,
        "model": made.case.model,
        "load": made.case.load,
        "metric": made.metric,
        "repeats": made.repeats,
        "next": best.next if best else None,
        "ratio": ratio,
        "bound": least if least and least > 1 else most,
        "confidence": 1 - best.alpha if best else None,
        "together": 1 - made.alpha if made.best else None,
        "each": made.confidence if made.best else None,
        "rows": [_row(run, made, group) for group in made.ranked],
    }


def _row(run: Run, made: Decision, group: Group) -> dict[str, Any]:
    names = dict.fromkeys((made.metric, *read_rates(run, made.ranked), *COLUMNS))
    ratio = made.ratio_to_leader(group.deployment)
    return {
        "deployment": group.deployment,
        "why_not": clipped(made.left_out.get(group.deployment) or "", _REASON_AT_MOST) or None,
        "to_leader": ratio
        and {"ratio": ratio[0], "low": ratio[1], "high": ratio[2], "text": ratio_words(*ratio)},
        "values": {name: _value(run, made, group, name) for name in names},
        "quality": _quality(run, group.deployment),
    }


def _quality(run: Run, label: str) -> dict[str, Any] | None:
    # A terminal has no room for the scores' intervals beside their values.
    scores = {head: value for head, (value, _) in quality.scores(run, label).items()}
    cells = {**quality.texts(run, label), **scores}
    if not cells:
        return None
    found = quality_of(run).get(label) or Quality(label, why=because("not_asked_for_tokens"))
    told = asdict(found.told) if found.told else {}
    return {
        "against": found.against,
        "is_reference": found.is_reference,
        "why": found.why_not_known and str(found.why_not_known),
        **{name: told.get(name) for name in ("way", "k", "left_out", "kl_nats", "interval", "agreement")},
        "scores": {
            each.task: {name: getattr(each, name) for name in ("score", "interval", "scored", "items")}
            for each in task_scores(run)
            if each.label == label
        },
        "cells": cells,
    }


def _value(run: Run, made: Decision, group: Group, name: str) -> dict[str, Any]:
    found = made.value(run, group, name)
    pooled = found.pooled.value if found.mean is None and found.pooled else None
    return {
        "value": found.mean if pooled is None else pooled,
        "unit": metric_of(name).unit,
        "interval": found.interval if has_interval(found) else None,
        "starts": found.k,
        "is_pooled": pooled is not None,
        "is_decided": made.leaders.get(name) == group.deployment,
        "marks": [each.check for each in marks_of(run, made.cells(run, group), name)],
        "text": shown(name, pooled) if pooled is not None else mean_text(name, found),
        "head": heading_of(name, unit_of(run, name)),
    }


def search_words(run: Run, found: Capacity) -> str:
    """Return `11 users ▲ 1 on each of 3 starts (12 users, 12 users, 11 users)`, or why it is not known."""
    by_start = f" ({', '.join(answer.words for answer in found.answers)})" if found.answers[1:] else ""
    if found.measured is None:
        return f"not known{by_start}: {found.why}"
    marks = mark_text(marks_of(run, found.cells_at_highest, *slo_metrics(run)))
    tried = " (the highest tried)" * found.is_at_limit
    at = f"not known: {found.why}; {found.load} as measured{tried}" if found.level is None else found.words
    return " ".join(filter(None, (at, marks, on_each(run, found)))) + by_start


# --- digest ---------------------------------------------------------------------------------------

DIGEST_VERSION = 6
# What a digest was made of: DIGEST_VERSION, then number, bytes and sum of change times of the run's records.
Sources = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digest:
    """A row of the index. `cells` were planned, `measured` completed."""

    run_id: str
    created_at: str
    question: str
    headline: str
    engines: tuple[str, ...]
    models: tuple[str, ...]
    quantizations: tuple[str, ...]
    scenarios: tuple[str, ...]
    device: str
    cells: int
    measured: int
    status: str


def digest_of(run: Run) -> Digest:
    cells, deployments = run.planned_cells, run.deployments.values()
    return Digest(
        run_id=run.record.run_id,
        created_at=run.record.created_at,
        question=question(run),
        headline=headline(run),
        engines=tuple(dict.fromkeys(each.engine for each in deployments)),
        models=tuple(dict.fromkeys(each.model for each in deployments if each.model != "-")),
        quantizations=tuple(dict.fromkeys(d.quantization for d in deployments if d.quantization != "-")),
        scenarios=tuple(dict.fromkeys(cell.planned.scenario.label for cell in cells)),
        device=device(run),
        cells=len(cells),
        measured=sum(cell.status == "completed" for cell in cells),
        status=run.record.status,
    )


def digest(run_dir: Path) -> Digest:
    """Return the stored digest if it is still valid; else make and store a new one.

    Raises StoreError if the run cannot be read.
    """
    sources = sources_of(run_dir)
    with suppress(OSError, StoreError):
        kept, found = read_json(run_dir / DIGEST_FILE, tuple[Sources, Digest])
        if kept == sources:
            return found
    made = digest_of(open_run(run_dir))
    keep(run_dir, sources, made)
    return made


def sources_of(run_dir: Path) -> Sources:
    """Return DIGEST_VERSION and the number, total size and summed times of the run's records."""
    records = ("run.json", "starts/*/start.json", "cells/*/cell.json")
    found = [each.stat() for record in records for each in run_dir.glob(record)]
    # A JSON number of more than 64 bits would not be read back.
    times_ns = sum(each.st_mtime_ns for each in found) % 2**62
    return DIGEST_VERSION, len(found), sum(each.st_size for each in found), times_ns


def keep(run_dir: Path, sources: Sources, made: Digest) -> None:
    """Write headline.json, whole or not at all; do nothing if the directory cannot be written."""
    with suppress(OSError):
        write_whole(run_dir / DIGEST_FILE, msgspec.json.encode((sources, made)) + b"\n", mode=PRIVATE)
