"""A run's numbers as tidy frames: what the page shows, in stored units.

Computes no statistic of its own. docs/python.md explains the columns.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from serving_bench.reports.checks.examine import findings_of, marks_of
from serving_bench.reports.data import Run, memory_over_time
from serving_bench.reports.measures import (
    aggregate,
    has_interval,
    metric_of,
    metrics_of,
    value_cells,
    value_names,
    values_of,
)
from serving_bench.reports.measures.fidelity import OUTCOMES
from serving_bench.reports.measures.quality import asked_again, fidelities, task_scores
from serving_bench.reports.measures.traffic.cache import served_of
from serving_bench.reports.verdicts import capacities_of, comparisons_of, decisions_of, slo_metrics, slo_rows
from serving_bench.reports.words.verdict_words import word_of

_Rows = Iterable[dict[str, Any]]
_OF_FIDELITY = "way k items tokens left_out kl_nats kl_p99_nats agreement median_same"
_OF_TEXTS = "perplexity perplexity_ratio rms_change"
_DTYPES = {"text": "string", "float": "float64", "int": "Int64", "bool": "boolean"}
# Each table's columns, after the type of their values; `cells` also has one for each metric. Users' scripts
# read these names, so they are an interface.
_DECLARED = {
    "values": "text: deployment engine model quantization scenario load family float: level text: metric "
    "unit better float: value low high least most int: starts n requests text: why float: pooled text: marks",
    "verdicts": "text: scenario load metric a b kind verdict bool: is_ratio float: ratio low high confidence "
    "int: family blocks text: why marks",
    "standings": "text: scenario load model deployment state why marks",
    "objectives": "text: scenario load deployment objective float: limit_s asked share low high int: met n "
    "text: state",
    "decisions": "text: scenario load model metric kind deployment next float: lead least confidence "
    "int: repeats advised text: why",
    "capacities": "text: deployment scenario model unit float: value measured bool: is_least "
    "int: starts text: why marks",
    "brackets": "text: deployment scenario start float: kept broken bool: is_whole int: trials",
    "quality": "text: deployment model against bool: is_reference text: way int: k items tokens left_out "
    "float: kl_nats low high kl_p99_nats agreement int: median_same "
    "float: perplexity perplexity_ratio rms_change text: why",
    "asked_again": "text: deployment way int: at_once same tie other empty cut failed",
    "tasks": "text: deployment task float: score low high int: items scored text: against "
    "int: both broken mended float: p",
    "cache": "text: deployment scenario load part int: requests float: input_tokens ideal reported "
    "inferred low high ttft_s text: why",
    "cells": "int: number text: start deployment engine model quantization int: repeat text: scenario load "
    "int: concurrency float: rate_per_s text: status validity reason float: window_s",
    "starts": "text: name int: index text: deployment int: repeat text: status error float: launch_s "
    "text: memory_kind float: memory_peak_bytes baseline_bytes after_bytes",
    "findings": "text: check title text remedy cells metrics bool: marks",
    "skips": "text: what reason",
}

# The type of each table's columns: text, float, int or bool.
TABLES: Mapping[str, Mapping[str, str]] = {
    table: {
        name: kind
        for kind, names in re.findall(r"(\w+): ([^:]*)(?= \w+:|$)", declared)
        for name in names.split()
    }
    for table, declared in _DECLARED.items()
}


def tables_of(run: Run) -> dict[str, pd.DataFrame]:
    """Return every table of TABLES by its name, including empty ones.

    Seconds, bytes, shares and tokens are as stored. A missing number is NaN or <NA>, with the reason in
    `why`. Requests are not among them: run.requests has one row for each.
    """
    rows: Mapping[str, _Rows] = {
        "values": _values(run),
        "verdicts": _verdicts(run),
        "standings": _standings(run),
        "objectives": _objectives(run),
        "decisions": _decisions(run),
        "capacities": _capacities(run),
        "brackets": _brackets(run),
        "quality": _quality(run),
        "asked_again": (
            {"deployment": label, "way": way, "at_once": n} | dict.fromkeys(OUTCOMES, 0) | dict(counts)
            for label, way, n, counts in asked_again(run)
        ),
        "tasks": _tasks(run),
        "cache": _cache(run),
        "cells": _cells(run),
        "starts": _starts(run),
        "findings": _findings(run),
        "skips": ({"what": each.what, "reason": str(each.reason)} for each in run.record.plan.skips),
    }
    return {name: framed(name, each) for name, each in rows.items()}


def framed(name: str, rows: _Rows) -> pd.DataFrame:
    """Return rows as the table of that name: its columns in order and typed, then those of the metrics."""
    frame = pd.DataFrame(list(rows))
    texts = {each: frame[each].map(str, na_action="ignore") for each in ("why", "reason") if each in frame}
    frame = frame.assign(**texts)
    kinds = {**TABLES[name], **{each: "float" for each in frame.columns if each not in TABLES[name]}}
    return frame.reindex(columns=list(kinds)).astype({each: _DTYPES[kind] for each, kind in kinds.items()})


def _of(thing: Any, names: str) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names.split()}


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _ids(findings: Iterable[Any]) -> str | None:
    return " ".join(dict.fromkeys(each.check for each in findings)) or None


def _values(run: Run) -> Iterator[dict[str, Any]]:
    have = {name for values in values_of(run).values() for name in values}
    price = run.record.price.currency if run.record.price else None
    for group in run.groups:
        for name in value_names():
            value, metric = aggregate(run, group, name), metric_of(name)
            if (have and name not in have) or metric not in metrics_of(run):
                continue
            is_there = value.mean is not None
            yield {
                **_of(group, "deployment engine model quantization scenario load family level"),
                "metric": name,
                "unit": price if metric.unit == "price.currency" else metric.unit,
                "better": metric.better,
                "value": value.mean,
                **_ends(value.interval if has_interval(value) else None),
                "least": value.low,
                "most": value.high,
                "starts": value.k,
                **_of(value, "n requests"),
                "why": None if is_there else value.why or "no cell was measured",
                "pooled": value.pooled.value if value.pooled else None,
                "marks": _ids(marks_of(run, value_cells(run, group), name)) if is_there else None,
            }


def _verdicts(run: Run) -> Iterator[dict[str, Any]]:
    groups, comparisons = {group.key: group for group in run.groups}, comparisons_of(run)
    for row in comparisons.rows:
        a, b = (groups[label, row.scenario, row.load] for label in (row.a, row.b))
        verdict, is_told = row.verdict, row.verdict.kind != "none"
        both = [*value_cells(run, a), *value_cells(run, b)]
        yield {
            **_of(row, "scenario load metric a b"),
            **_of(verdict, "kind why"),
            "verdict": word_of(row.metric, verdict, run.record.compare.margin_share),
            "is_ratio": verdict.is_log,
            "blocks": verdict.k,
            # Without a verdict there is no ratio either.
            **(_of(verdict, "ratio low high confidence") if is_told else {}),
            "family": comparisons.family,
            "marks": _ids(marks_of(run, both, row.metric)) if is_told else None,
        }


def _decisions(run: Run) -> Iterator[dict[str, Any]]:
    for decision in decisions_of(run):
        best = decision.best
        yield {
            **_of(decision.case, "scenario load model"),
            **_of(decision, "metric kind repeats advised why"),
            "deployment": decision.served,
            "next": best and best.next,
            "lead": best and best.over[best.next].shown,
            "least": best and best.lead_over(best.nearest)[0],
            "confidence": best and 1 - best.wrong,
        }


# --- the SLO, and a search -------------------------------------------------------------------------


def _standings(run: Run) -> _Rows:
    return (
        {
            **_of(row, "scenario load model"),
            "deployment": each.label,
            "state": each.state,
            "why": (each.judged.too_high or each.judged.problem) if each.judged else None,
            "marks": _ids(marks_of(run, each.group.counted if each.group else (), *slo_metrics(run))),
        }
        for row in slo_rows(run)
        for each in row.standings
    )


def _objectives(run: Run) -> _Rows:
    return (
        {
            **_of(row, "scenario load"),
            "deployment": each.label,
            "objective": attained.objective.name,
            "limit_s": attained.objective.limit_s,
            "asked": attained.objective.share,
            **_of(attained, "share met n"),
            **_ends(attained.interval),
            "state": attained.verdict,
        }
        for row in slo_rows(run)
        for each in row.standings
        for attained in (each.judged.attained if each.judged else ())
    )


def _capacities(run: Run) -> _Rows:
    return (
        {
            **_of(each, "deployment scenario is_least why"),
            "model": each.group.model,
            "unit": "users" if each.group.family == "closed loop" else "conversations/s",
            "value": each.level,
            "measured": each.measured,
            "starts": len(each.answers),
            "marks": _ids(marks_of(run, each.cells_at_highest, *slo_metrics(run))),
        }
        for each in capacities_of(run)
    )


def _brackets(run: Run) -> _Rows:
    return (
        {
            **_of(each, "deployment scenario"),
            **_of(answer, "start kept broken is_whole"),
            "trials": sum(len(tried.cells) for tried in answer.tried),
        }
        for each in capacities_of(run)
        for answer in each.answers
    )


def _quality(run: Run) -> _Rows:
    return (
        {
            "is_reference": quality.is_reference,
            "why": quality.why if each is None or each.few is None else each.few,
            "deployment": quality.label,
            "model": run.deployments[quality.label].model,
            "against": quality.against,
            **(_of(each, f"{_OF_FIDELITY} {_OF_TEXTS}") | _ends(each.interval) if each else {}),
        }
        for quality, each in fidelities(run)
    )


def _tasks(run: Run) -> Iterator[dict[str, Any]]:
    for each in task_scores(run):
        row = _of(each, "task score items scored") | _ends(each.interval) | {"deployment": each.label}
        flips = each.flips
        yield row | (_of(flips, "against broken mended p") | {"both": flips.items} if flips else {})


def _cache(run: Run) -> Iterator[dict[str, Any]]:
    for each in served_of(run):
        estimate = each.inferred
        yield {
            **_of(each.group, "deployment scenario load"),
            **_of(each, "requests input_tokens ideal reported ttft_s"),
            "part": each.part or None,
            **({"inferred": estimate.tokens} | _of(estimate, "low high") if estimate else {}),
            "why": each.why or None,
        }


def _cells(run: Run) -> Iterator[dict[str, Any]]:
    for cell in run.planned_cells:
        values = values_of(run).get(cell.number, {})
        yield {
            **_of(cell, "number status reason window_s"),
            **_of(cell.start.deployment, "engine model quantization"),
            **dict(zip(("deployment", "scenario", "load"), cell.key, strict=True)),
            "start": cell.record.start if cell.record else cell.start.name,
            "repeat": cell.planned.repeat,
            "concurrency": cell.load.concurrency if cell.load.kind == "closed" else None,
            "rate_per_s": cell.load.rate_per_s,
            "validity": cell.validity if cell.status == "completed" else None,
            **{name: value.value for name, value in values.items()},
        }


def _starts(run: Run) -> Iterator[dict[str, Any]]:
    for record in run.start_records:
        sizes = memory_over_time(run, record).size_bytes
        yield {
            **_of(record, "name index repeat status error launch_s memory_kind baseline_bytes after_bytes"),
            "deployment": record.deployment.label,
            "memory_peak_bytes": sizes.max() if len(sizes) else None,
        }


def _findings(run: Run) -> _Rows:
    return (
        {
            **_of(each, "check title text remedy marks"),
            "cells": " ".join(map(str, each.cells)) or None,
            "metrics": " ".join(each.metrics) or None,
        }
        for each in findings_of(run)
    )
