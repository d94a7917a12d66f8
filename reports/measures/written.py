"""Write numbers, intervals and lists as plain text for a person. Knows no markup."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serving_bench.harness.contracts import plural as plural
from serving_bench.reports.measures.metrics import metric_of
from serving_bench.reports.measures.over_starts import Aggregate, has_interval, shorter_half, span

NOTHING = "–"


def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    """Return `scale` times a number with thousands separators; `–` for None.

    With one digit, a value below ten gets another. A value that would round to zero is `<0.1` and the like.
    """
    if value is None:
        return NOTHING
    value *= scale
    places = digits + 1 if digits == 1 and abs(value) < 10 else digits
    return f"<{10.0**-places:.{places}f}" if 0 < value < 0.5 * 10.0**-places else f"{value:,.{places}f}"


def precise(value: float | None, digits: int) -> str:
    """Return `number` with two significant digits for a small value."""
    small = 1 - math.floor(math.log10(abs(value))) if value else 0
    return number(value, min(max(digits, small), 9))


def shown(name: str, value: float | None) -> str:
    """Return a metric's stored value as shown, in its shown unit but without naming it."""
    metric = metric_of(name)
    write = precise if metric.may_be_small else number
    return write(None if value is None else value * metric.shown_scale, metric.digits)


def supported(name: str, value: float | None, half: float) -> str:
    """Return `shown` without the digits that an uncertainty of `half` (in the stored unit) turns into noise.

    The last digit is worth at most a fifth of `half`: 1,234 with 434 is `1,230`.
    """
    whole, metric = shown(name, value), metric_of(name)
    if value is None or not half > 0 or whole.startswith("<"):
        return whole
    places = -math.floor(math.log10(half * metric.shown_scale / 5))
    if places >= len(whole.partition(".")[2]):
        return whole
    return f"{round(value * metric.shown_scale, places):,.{max(places, 0)}f}"


def mean_text(name: str, aggregate: Aggregate) -> str:
    """Return a mean with the digits that its interval supports, without its unit."""
    return supported(name, aggregate.mean, shorter_half(aggregate))


def span_text(name: str, aggregate: Aggregate) -> str:
    """Return what is shown beside a mean, with its decimals: `[9.5, 10.5]` for an interval, `(9.8–10.2)` for
    a range, nothing for one value."""
    ends = span(aggregate)
    if ends is None:
        return ""
    low, high = (_like(mean_text(name, aggregate), name, end, shorter_half(aggregate)) for end in ends)
    return f"[{low}, {high}]" if has_interval(aggregate) else f"({low}–{high})"


def value_text(name: str, aggregate: Aggregate) -> str:
    """Return a value without its unit: `104.9 [98.1, 112.2]`, `104.9 (98.1–112.2)` for two starts, or `–`.
    A percentile that some starts lack is `104.9 (pooled over 3 starts)`."""
    if aggregate.mean is None and aggregate.pooled:
        return f"{shown(name, aggregate.pooled.value)} ({aggregate.pooled_over})"
    return f"{mean_text(name, aggregate)} {span_text(name, aggregate)}".rstrip()


def _like(main: str, name: str, value: float, half: float) -> str:
    """Return `supported` with the decimals of `main`, unless nothing of the value would be left."""
    digits, places = supported(name, value, half), len(main.partition(".")[2])
    if "<" in digits + main or len(digits.partition(".")[2]) == places:
        return digits
    scaled = value * metric_of(name).shown_scale
    return f"{scaled:,.{places}f}" if abs(scaled) >= 0.5 * 10.0**-places else digits


def several(names: Sequence[str], between: str = ", ") -> str:
    """Return the first four different names, and how many more there are."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - 4} more" if len(different) > 4 else ""
    return between.join(different[:4]) + more


def flat(facts: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and lists with their dotted keys, in order."""
    if not isinstance(facts, Mapping | list | tuple):
        yield prefix, facts
        return
    for key, value in facts.items() if isinstance(facts, Mapping) else enumerate(facts):
        yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
