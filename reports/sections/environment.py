"""The machine and the servers as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.charts import Section
from reports.frames import Run
from reports.markup import NOTHING, Html, join, number, table, tag, text
from reports.opening import flat


def section(run: Run) -> Section | None:
    """Facts as recorded, by topic; then what each deployment's server said of itself."""
    rows = [[key, _value(key, value)] for key, value in flat(run.record.environment)]
    parts = [table(["fact", "value"], rows, "words")] if rows else [tag("p", "Nothing was recorded.")]
    for title, field in (("What each server says that it uses", "resolved"), ("Weights", "weights")):
        by_label = {r.deployment.label: getattr(r, field) for r in run.start_records if getattr(r, field)}
        if by_label:
            parts += [tag("h3", title), _side_by_side(by_label)]
    return Section("Environment", join(parts))


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
