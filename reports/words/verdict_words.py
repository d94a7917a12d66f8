"""Verdicts in words and ratios in figures, the same wherever one is said: page, terminal, gate.

Knows no run and no markup.
"""

import math
from collections.abc import Sequence

from reports.measures.metrics import is_percentile, metric_of
from reports.stats.family import Verdict

_SHORT = {"ttft_s": "TTFT", "itl_s": "ITL", "tpot_s": "TPOT", "e2e_s": "E2E"}
_TITLES = {
    "output_tokens_per_s": "output tokens/s",
    "requests_per_s": "requests/s",
    "cores_used": "cores used",
    "output_tokens_per_s_per_core": "tokens/s per core",
}
_PLACES_AT_MOST = 6
_RATIO_PLACES_AT_MOST = 4
# Values that differ by less are equal but for the rounding of a computer.
_LEAST_SEEN = 1e-9
# An interval that three starts of a large family leave may reach beyond any sense.
_FACTOR_AT_MOST = 1000


def title_of(name: str) -> str:
    """A value's name as a sentence has it, without its unit: `TTFT p95`, `output tokens/s`, `peak memory`."""
    metric, _, level = name.partition(".")
    title = _SHORT.get(metric) or _TITLES.get(metric) or metric_of(name).title
    return f"{title} {level}" if is_percentile(name) else title


def heading_of(name: str, unit: str | None = None) -> str:
    """The same with its unit, as a column's head: `TTFT p95 ms`. `unit`: another one, as a currency."""
    metric = name.partition(".")[0]
    return title_of(name) if metric in _TITLES else f"{title_of(name)} {unit or metric_of(name).shown_unit}"


def margin_text(margin_share: float) -> str:
    """`5 %`."""
    return f"{100 * margin_share:g} %"


def family_text(count: int) -> str:
    """Return the rule of `count` verdicts that are decided together (reports/stats/family.py)."""
    return f"95 %, corrected for {count:,} comparisons" if count > 1 else "95 %, one comparison"


def word_of(name: str, verdict: Verdict, margin_share: float) -> str:
    """`faster`, `slower`, `same within 5 %`, `cannot tell`, or `no verdict`, by the metric's own words."""
    better, worse = metric_of(name).words
    words = {
        "better": better,
        "worse": worse,
        "same": f"same within {margin_text(margin_share)}",
        "unknown": "cannot tell",
        "none": "no verdict",
    }
    return words[verdict.kind]


def ratio_text(name: str, verdict: Verdict) -> str:
    """`1.31x [1.24, 1.38]`, or a difference with its unit, `+2.1 [+0.4, +3.8] tokens per request`; empty
    where there is no interval."""
    if verdict.ratio is None or verdict.low is None or verdict.high is None or verdict.k < 2:
        return ""
    values = (verdict.ratio, verdict.low, verdict.high)
    if verdict.is_log:
        return ratio_words(values[0], values[1:], is_told=verdict.kind in ("better", "worse"))
    metric = metric_of(name)
    scaled = [value * metric.shown_scale for value in values]
    places = _difference_places(scaled, metric.digits)
    mean, low, high = (signed(value, places) for value in scaled)
    return f"{mean} [{low}, {high}] {metric.shown_unit}"


def signed(value: float, places: int) -> str:
    """With its sign, and none for what is rounded to 0."""
    text = f"{value:+,.{places}f}"
    return text[1:] if not float(text.replace(",", "")) else text.replace("-", "−")


def ratio_words(mean: float, ends: Sequence[float], *, is_told: bool) -> str:
    """`1.31x [1.24, 1.38]`, with the places that its interval supports: two, and more where that is narrower.
    `is_told`: from 1, as which it then does not read."""
    places = _ratio_places(mean, ends, is_told=is_told)
    said, low, high = (_factor(value, places) for value in (mean, *ends))
    return f"{said}x [{low}, {high}]"


def _ratio_places(mean: float, ends: Sequence[float], *, is_told: bool) -> int:
    values = (mean, *ends)
    half = min(abs(mean - end) for end in ends)
    places = max(
        3 if min(values) < 0.1 and max(values) < 1 else 2, min(_places_to_see(half), _RATIO_PLACES_AT_MOST)
    )
    if not is_told:
        return places
    nearest = min((abs(value - 1) for value in values if value != 1), default=1.0)
    return max(places, _places_to_see(nearest))


def _factor(value: float, places: int) -> str:
    if value > _FACTOR_AT_MOST:
        return f">{_FACTOR_AT_MOST:,}"
    if value >= 100:
        return f"{value:,.0f}"
    return f"<{10.0**-places:.{places}f}" if 0 < value < 0.5 * 10.0**-places else f"{value:,.{places}f}"


def _difference_places(values: Sequence[float], digits: int) -> int:
    return max(digits, _places_to_see(max(map(abs, values))))


def _places_to_see(value: float) -> int:
    """Decimal places with which a value is not rounded to 0; six at most."""
    if value < _LEAST_SEEN:
        return 0
    return min(_PLACES_AT_MOST, max(0, math.ceil(-math.log10(2 * value))))
