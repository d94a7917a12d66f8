"""Keys of what a run is for: `slo.*`, `until`, `compare.*`, `gate.*`, `search.*`. Pure.

Whether a metric exists is asked of the reports, by the commands: this file knows its name alone.
"""

from __future__ import annotations

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
    Scalar,
    SearchTerms,
    Until,
)
from harness.errors import UserError
from harness.settings.decoding import check_single, decode, fields_by_key, single
from harness.settings.values import Choices, shown

# Of which a request has a value of its own.
SLO_METRICS = ("ttft_s", "tpot_s", "e2e_s")
_SLO = re.compile(rf"slo\.({'|'.join(SLO_METRICS)})\.p([1-9]\d?)")
_SLO_SUCCESS = f"slo.{SUCCESS}"
_UNTIL = re.compile(r"ci:(.+)")
# Of a search of rates, at its lowest.
_CONVERSATIONS_A_WINDOW = 4
# What each key takes, and its default as it would be given; `-`: none.
_SAID = {
    _SLO_SUCCESS: ("a share, such as 99%", "-"),
    "until": ("ci:5%, the half-width that an interval is to have", "-"),
    "until.metric": ("a name of `bench list metrics`", Until.metric),
    "until.budget": ("a duration, such as 2h", f"{Until.budget_s:g}s"),
    "compare.margin": ("a share, such as 5%", f"{100 * CompareTerms.margin_share:g}%"),
    "compare.baseline": ("a deployment's label, as `bench plan` prints it", "the first deployment"),
    "compare.metric": ("names of `bench list metrics`", ",".join(COMPARED_METRICS)),
    "gate.metric": ("a name of `bench list metrics`", GateTerms.metric),
    "gate.max_regression": ("a share, such as 5%", f"{100 * GateTerms.max_regression_share:g}%"),
}
_COMPARE_KEYS = [key for key in _SAID if key.startswith("compare.")]


def is_slo(key: str) -> bool:
    """Return whether a key is an objective's: slo.ttft_s.p95 (any whole percentile), slo.success."""
    return key == _SLO_SUCCESS or _SLO.fullmatch(key) is not None


def why_no_slo(key: str) -> str | None:
    """Return what is wrong with a key that is nearly an objective's; None for any other."""
    if match := re.fullmatch(rf"slo\.({'|'.join(SLO_METRICS)})\.p[\d.]+", key):
        return f"percentiles are whole, slo.{match[1]}.p1 to slo.{match[1]}.p99"
    return None


def keys() -> list[str]:
    """Return every key of a run's goals; of objectives those at the usual percentiles."""
    slo = [f"slo.{metric}.p{level}" for metric in SLO_METRICS for level in (50, 90, 95, 99)]
    return [*slo, *(key for key in _SAID if not key.startswith("gate."))]


def takes() -> dict[str, str]:
    """Return what each of them takes, and those of `bench gate`."""
    of_slo = dict.fromkeys(keys(), "a duration, such as 500ms")
    return of_slo | {key: said for key, (said, _) in _SAID.items()}


def defaults() -> dict[str, str]:
    """Return the default of each; of objectives one stands for the others."""
    of_slo = {f"slo.{metric}.p95": "-" for metric in SLO_METRICS}
    return of_slo | {key: default for key, (_, default) in _SAID.items()}


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
        _check_positive(key, values[0], limit_s)
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
    _check_part("until", text, share)
    rule: Until = single("until", Until, given, half_width_share=share)
    _check_positive("until.budget", rule.budget_s, rule.budget_s)
    return rule


def compare_terms(given: Choices) -> CompareTerms:
    """Return the terms of compare.*. Raises UserError."""
    # A list of metrics is one value, and no sweep.
    metrics = tuple(dict.fromkeys(decode("compare.metric", str, v) for v in given.get("compare.metric", ())))
    terms: CompareTerms = single("compare", CompareTerms, given, metrics=metrics or COMPARED_METRICS)
    _check_part("compare.margin", given.get("compare.margin", ("",))[0], terms.margin_share)
    return terms


def only_compare_terms(given: Choices) -> CompareTerms:
    """Return the terms of a command that takes compare.* keys alone. Raises UserError."""
    _check_only(given, _COMPARE_KEYS)
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
    usual = {"concurrency": (1.0, 1024.0), "rate": (_lowest_rate(given), 1000.0)}[terms.over]
    lowest = usual[0] if terms.lowest is None else terms.lowest
    highest = usual[1] if terms.highest is None else terms.highest
    ends = f"search.lowest={lowest:g}, search.highest={highest:g}"
    if not 0 < lowest < highest:
        raise UserError(f"{ends}: must be above 0, and in order")
    if terms.over == "concurrency" and (lowest % 1 or highest % 1):
        raise UserError(f"{ends}: users are whole numbers")
    _check_part("search.precision", given.get("search.precision", ("",))[0], terms.precision_share)
    if terms.trials < 1:
        raise UserError(f"search.trials={terms.trials}: must be 1 or more")
    return replace(terms, lowest=lowest, highest=highest)


def _lowest_rate(given: Choices) -> float:
    """Return where a search of rates begins: a window with hardly a conversation in it says nothing."""
    values = [value for value in given.get("load.duration", ()) if value is not None]
    windows_s = [decode("load.duration", float, value, "_s") for value in values]
    shortest_s = min(windows_s, default=Load.duration_s or 0.0)
    return max(0.1, float(f"{_CONVERSATIONS_A_WINDOW / shortest_s:.1g}"))


def _check_only(given: Choices, own: Iterable[str]) -> None:
    for key, values in given.items():
        if key not in own:
            raise UserError(f"{key}={shown(values[0])}: no such key here; choose from {', '.join(own)}")


def _check_positive(key: str, given: Scalar, value: float) -> None:
    if value <= 0:
        raise UserError(f"{key}={shown(given)}: must be more than 0")


def _check_part(key: str, given: Scalar, share: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"{key}={shown(given)}: must be more than 0 % and less than 100 %, such as 5%")
