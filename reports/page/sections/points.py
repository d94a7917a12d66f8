"""What stands behind a point of a chart: its hover, its marks, and its values by start and by turn.

Draws nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reports.checks.examine import SIGN, marks_of
from reports.data.cells import Group
from reports.data.chunks import quantile, together
from reports.data.run import Run
from reports.measures.metrics import LATENCIES, Value, counted, is_percentile, is_supported, metric_of
from reports.measures.over_starts import Aggregate, by_start, has_interval
from reports.measures.values import gap_counts_of
from reports.measures.written import plural, span_text
from reports.page.charts import Alone
from reports.page.charts import label as text_of
from reports.page.drawn.thinned import significant

# A note names so many kinds of marks.
_MARKS_NAMED = 2


def point_text(run: Run, group: Group, name: str, value: Aggregate) -> str:
    """What a point's hover says beside its value: interval, starts, n and marks."""
    ends, word = span_text(name, value), "start" if value.is_of_starts else "block"
    said = [f"95 % interval {ends}" if has_interval(value) else f"range {ends}"] if ends else []
    said += [plural(value.k, word), f"n = {counted(value.n, value.requests)}"]
    marks = list(dict.fromkeys(each.title for each in marks_of(run, group, name)))
    return text_of(", ".join(said)) + "".join(f"<br>{SIGN} {text_of(title)}" for title in marks)


def points_by_start(run: Run, name: str, groups: Sequence[Group]) -> dict[int, Alone]:
    """By start (from 1) its value at each of these loads, in the shown unit; nothing of a single start."""
    return _each_alone(
        name,
        [{repeat + 1: each for repeat, each in by_start(run, group, name).items()} for group in groups],
    )


def by_turn(run: Run, name: str, groups: Sequence[Group]) -> dict[int, Alone]:
    """By turn (from 1) the percentile of a latency at each of these loads, over the starts' requests
    together, in the shown unit; nothing of other values, and where there is one turn."""
    metric, _, level = name.partition(".p")
    if not is_percentile(name) or metric not in LATENCIES:
        return {}
    return _each_alone(name, [turn_values(run, group, metric, int(level)) for group in groups])


def _each_alone(name: str, found: Sequence[Mapping[int, Value]]) -> dict[int, Alone]:
    """By what is asked for, from its value at each load; nothing where there is one of them."""
    asked = sorted({key for each in found for key in each})
    if len(asked) < 2:
        return {}
    at = {key: [each.get(key, Value(None, 0)) for each in found] for key in asked}
    return {key: alone(name, values) for key, values in at.items()}


def alone(name: str, values: Sequence[Value]) -> Alone:
    """Values of one start or one turn in the shown unit, with their n."""
    scale = metric_of(name).shown_scale
    return Alone(
        [_scaled(each.value, scale) for each in values], [counted(each.n, each.requests) for each in values]
    )


def turn_values(run: Run, group: Group, metric: str, level: int) -> dict[int, Value]:
    """A percentile of a latency by turn (from 1), in seconds; None where a turn has too few observations."""
    if metric == "itl_s":
        gaps = together(gap_counts_of(run, cell.number) for cell in group.counted)
        return {
            turn + 1: _gap_value(gaps.of_turn(turn), int(gaps.requests[turn]), level)
            for turn in range(gaps.turns)
        }
    frames = [run.by_turn(cell.number, metric) for cell in group.counted]
    if not frames:
        return {}
    by_turn = pd.concat(frames).groupby("turn")["seconds"]
    counts, values = by_turn.size(), by_turn.quantile(level / 100)
    return {
        int(turn) + 1: Value(
            float(values[turn]) if is_supported(level, int(counts[turn])) else None, int(counts[turn])
        )
        for turn in counts.index
    }


def _gap_value(counts: np.ndarray, requests: int, level: int) -> Value:
    n = int(counts.sum())
    return Value(quantile(counts, level / 100) if is_supported(level, n, requests) else None, n, requests)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else significant(value * scale)


def marked_points(run: Run, groups: Sequence[Group], names: Sequence[str], word: str = "point") -> str:
    """How many of the points (of what `word` says) that show these values bear a mark, and the commonest
    reasons."""
    marks = [{each.title for name in names for each in marks_of(run, group, name)} for group in groups]
    count = sum(map(bool, marks))
    if not count:
        return ""
    titles = [title for title, _ in Counter(title for each in marks for title in sorted(each)).most_common()]
    more = f" and {len(titles) - _MARKS_NAMED} more" if len(titles) > _MARKS_NAMED else ""
    some = f"{count} of {plural(len(marks), word)} {'bears' if count == 1 else 'bear'}"
    which = f"Every {word} bears" if count == len(marks) else some
    return f"{SIGN} {which} a mark: {'; '.join(titles[:_MARKS_NAMED])}{more}."
