"""The traffic, the machine and the servers as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.charts import Section
from reports.frames import Run
from reports.markup import NOTHING, Html, details, join, number, table, tag, text
from reports.opening import flat

_OPEN_TOPICS = ("traffic", "machine", "devices")


def section(run: Run) -> Section | None:
    """The traffic; facts as recorded, the long ones folded; then what each server said of itself."""
    by_topic: dict[str, list[list[Html | str]]] = _traffic(run)
    for key, value in flat(run.record.environment):
        topic, _, name = key.partition(".")
        by_topic.setdefault(topic, []).append([name or topic, _value(key, value)])
    parts = [_topic(topic, rows) for topic, rows in by_topic.items()]
    for title, field in (("What each server says that it uses", "resolved"), ("Weights", "weights")):
        by_label = {r.deployment.label: getattr(r, field) for r in run.start_records if getattr(r, field)}
        if by_label:
            parts += [tag("h3", title), _side_by_side(by_label)]
    return Section("Environment", join(parts or [tag("p", "Nothing was recorded.")]))


def _traffic(run: Run) -> dict[str, list[list[Html | str]]]:
    """Options of each scenario and terms of each load, as planned."""
    rows: list[list[Html | str]] = []
    for label, cell in {cell.planned.scenario.label: cell for cell in run.planned_cells}.items():
        said = ", ".join(f"{key} {value}" for key, value in flat(cell.planned.scenario.options))
        rows.append([label, said or NOTHING])
    for label, cell in {cell.load_label: cell for cell in run.planned_cells}.items():
        load = cell.planned.load
        ends = f" or {load.conversations:,} conversations" if load.conversations is not None else ""
        terms = f"warm-up {load.warmup_s:g} s, window {load.duration_s:g} s{ends}"
        rows.append([label, f"{terms}, a request at most {load.timeout_s:g} s"])
    return {"traffic": rows} if rows else {}


def _topic(topic: str, rows: list[list[Html | str]]) -> Html:
    facts, title = table(["fact", "value"], rows, "words facts"), topic.replace("_", " ")
    return join([tag("h3", title), facts]) if topic in _OPEN_TOPICS else details(title, facts)


def _side_by_side(by_label: Mapping[str, Mapping[str, Any]]) -> Html:
    keys = list(dict.fromkeys(key for facts in by_label.values() for key in facts))
    rows: list[Sequence[Html | str]] = [
        [key, *(_value(key, facts.get(key)) for facts in by_label.values())] for key in keys
    ]
    return table(["", *by_label], rows, "words")


def _value(key: str, value: Any) -> Html | str:
    if value is None:
        return NOTHING
    if key.endswith("_bytes") and isinstance(value, int | float) and value >= 2**20:
        return f"{number(value / 2**30, 2)} GiB"
    return text(value)
