"""Keys of what a run is for: `slo.*`, `until`, `compare.*`, `gate.*`, `search.*`. Pure.

Whether a metric exists is asked of the reports, by the commands: this file knows its name alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from harness.contracts import (
    COMPARED_METRICS,
    SUCCESS,
    CompareTerms,
    GateTerms,
    Load,
    Objective,
    SearchTerms,
    Until,
)
from harness.errors import UserError
from harness.settings.decoding import (
    MUST_BE_PART,
    Choices,
    check_single,
    decode,
    fields_by_key,
    shown,
    single,
)

# Of which a request has a value of its own.
_SLO_METRICS = ("ttft_s", "tpot_s", "e2e_s")
_SLO = re.compile(rf"slo\.({'|'.join(_SLO_METRICS)})\.p([1-9]\d?)")
_SLO_SUCCESS = f"slo.{SUCCESS}"
_UNTIL = re.compile(r"ci:(.+)")
# Of a search of rates, at its lowest: a window with hardly a conversation in it says nothing.
_CONVERSATIONS_A_WINDOW = 4
# The default of each key as it would be given (`-`: none), and what it takes. Of objectives one percentile
# stands for the others.
LISTED: dict[str, tuple[str, str]] = {
    **{f"slo.{metric}.p95": ("-", "a duration, such as 500ms") for metric in _SLO_METRICS},
    _SLO_SUCCESS: ("-", "a share, such as 99%"),
    "until": ("-", "ci:5%, the half-width that an interval is to have"),
    "until.metric": (Until.metric, "a name of `bench list metrics`"),
    "until.budget": (f"{Until.budget_s:g}s", "a duration, such as 2h"),
    "compare.margin": (f"{100 * CompareTerms.margin_share:g}%", "a share, such as 5%"),
    "compare.baseline": ("the first deployment", "a deployment's label, as `bench plan` prints it"),
    "compare.metric": (",".join(COMPARED_METRICS), "names of `bench list metrics`"),
    "gate.metric": (GateTerms.metric, "a name of `bench list metrics`"),
    "gate.max_regression": (f"{100 * GateTerms.max_regression_share:g}%", "a share, such as 5%"),
}
# Every key of a run's goals; of objectives those at the usual percentiles.
KEYS_OF_RUNS = [
    *(f"slo.{metric}.p{level}" for metric in _SLO_METRICS for level in (50, 90, 95, 99)),
    *(key for key in LISTED if not key.startswith("gate.")),
]


def is_slo(key: str) -> bool:
    """Return whether a key is an objective's: slo.ttft_s.p95 (any whole percentile), slo.success."""
    return key == _SLO_SUCCESS or _SLO.fullmatch(key) is not None


def why_no_slo(key: str) -> str | None:
    """Return what is wrong with a key that is nearly an objective's; None for any other."""
    if match := re.fullmatch(rf"slo\.({'|'.join(_SLO_METRICS)})\.p[\d.]+", key):
        return f"percentiles are whole, slo.{match[1]}.p1 to slo.{match[1]}.p99"
    return None


def objectives(given: Choices) -> Iterator[Objective]:
    """Yield the objectives of slo.*. Raises UserError."""
    for key, values in given.items():
        if not is_slo(key):
            continue
        check_single(key, values)
        value = shown(values[0])
        match = _SLO.fullmatch(key)
        if match is None:
            share = decode(key, float, values[0], "_share")
            if not 0 < share <= 1:
                raise UserError(f"{key}={value}: must be above 0 % and at most 100 %, such as 99%")
            yield Objective(SUCCESS, share)
            continue
        if value.replace(".", "", 1).isdigit():
            raise UserError(f"{key}={value}: needs a unit; write {value}ms or {value}s")
        limit_s = decode(key, float, values[0], "_s")
        if limit_s <= 0:
            raise UserError(f"{key}={value}: must be more than 0")
        yield Objective(match[1], int(match[2]) / 100, limit_s)


def until(given: Choices) -> Until | None:
    """Return the rule by which repeats are added, if there is one. Raises UserError."""
    check_single("until", given.get("until", ()))
    if "until" not in given:
        if beside := next((key for key in fields_by_key("until", Until) if key in given), None):
            raise UserError(f"{beside}={shown(given[beside][0])}: is of until; give until=ci:5% too")
        return None
    text = shown(given["until"][0])
    match = _UNTIL.fullmatch(text)
    if match is None:
        raise UserError(f"until={text}: must be of the form ci:5%")
    share = decode("until", float, match[1], "_share")
    if not 0 < share < 1:
        raise UserError(f"until={text}: {MUST_BE_PART}")
    rule: Until = single("until", Until, given, half_width_share=share)
    if rule.budget_s <= 0:
        raise UserError(f"until.budget={rule.budget_s}: must be more than 0")
    return rule


def compare_terms(given: Choices) -> CompareTerms:
    """Return the terms of compare.*. Raises UserError."""
    # A list of metrics is one value, and no sweep.
    metrics = tuple(dict.fromkeys(decode("compare.metric", str, v) for v in given.get("compare.metric", ())))
    terms: CompareTerms = single("compare", CompareTerms, given, metrics=metrics or COMPARED_METRICS)
    return terms


def only_compare_terms(given: Choices) -> CompareTerms:
    """Return the terms of a command that takes compare.* keys alone. Raises UserError."""
    _check_only(given, [key for key in LISTED if key.startswith("compare.")])
    return compare_terms(given)


def gate_terms(given: Choices) -> GateTerms:
    """Return the terms of `bench gate`, which takes gate.* keys alone. Raises UserError."""
    _check_only(given, fields_by_key("gate", GateTerms))
    terms: GateTerms = single("gate", GateTerms, given)
    if not 0 <= terms.max_regression_share < 1:
        value = shown(given["gate.max_regression"][0])
        raise UserError(f"gate.max_regression={value}: must be 0 % or more and less than 100 %, such as 5%")
    return terms


def search_terms(given: Choices) -> SearchTerms:
    """Return the terms of search.*, with the ends of the range filled in. Raises UserError."""
    terms: SearchTerms = single("search", SearchTerms, given)
    lowest, highest = (1.0, 1024.0) if terms.over == "concurrency" else (_lowest_rate(given), 1000.0)
    lowest = lowest if terms.lowest is None else terms.lowest
    highest = highest if terms.highest is None else terms.highest
    ends = f"search.lowest={lowest:g}, search.highest={highest:g}"
    if not 0 < lowest < highest:
        raise UserError(f"{ends}: must be above 0, and in order")
    if terms.over == "concurrency" and (lowest % 1 or highest % 1):
        raise UserError(f"{ends}: users are whole numbers")
    return replace(terms, lowest=lowest, highest=highest)


def _lowest_rate(given: Choices) -> float:
    """Return the rate at which the shortest window sees a few conversations begin."""
    values = [value for value in given.get("load.duration", ()) if value is not None]
    windows_s = [decode("load.duration", float, value, "_s") for value in values]
    shortest_s = min(windows_s, default=Load.duration_s or 0.0)
    return max(0.1, float(f"{_CONVERSATIONS_A_WINDOW / shortest_s:.1g}"))


def _check_only(given: Choices, own: Iterable[str]) -> None:
    for key, values in given.items():
        if key not in own:
            raise UserError(f"{key}={shown(values[0])}: no such key here; choose from {', '.join(own)}")
