"""Keys of what a run is for: `slo.*`, `until`, `compare.*`, `gate.*`, `search.*`. Pure.

Whether a metric exists is asked of the reports, by the commands: this file knows its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
from harness.settings.decoding import check_single, decode, fields_by_key, points
from harness.settings.values import Choices, shown

# Of which a request has a value of its own.
SLO_METRICS = ("ttft_s", "tpot_s", "e2e_s")
_SLO = re.compile(rf"slo\.({'|'.join(SLO_METRICS)})\.p([1-9]\d?)")
_SLO_SUCCESS = f"slo.{SUCCESS}"
_UNTIL = re.compile(r"ci:(.+)")
# Of a search of rates, at its lowest.
_CONVERSATIONS_A_WINDOW = 4
# A list of metrics is one value of these keys, and no sweep.
_LISTS = ("compare.metric",)
_TAKES = {
    "until": "ci:5%, the half-width that an interval is to have",
    "until.metric": "a name of `bench list metrics`",
    "until.budget": "a duration, such as 2h",
    "compare.margin": "a share, such as 5%",
    "compare.baseline": "a deployment's label, as `bench plan` prints it",
    "compare.metric": "names of `bench list metrics`",
    _SLO_SUCCESS: "a share, such as 99%",
}


@dataclass(frozen=True)
class UntilKeys:
    """The keys beside `until` itself."""

    metric: str = Until.metric
    budget_s: float = Until.budget_s


@dataclass(frozen=True)
class CompareKeys:
    margin_share: float = CompareTerms.margin_share
    baseline: str | None = None


@dataclass(frozen=True)
class Goals:
    """What a run's keys say of its goals."""

    slo: tuple[Objective, ...]
    until: Until | None
    compare: CompareTerms


def is_slo(key: str) -> bool:
    """Whether a key is an objective's: slo.ttft_s.p95 (any whole percentile), slo.success."""
    return key == _SLO_SUCCESS or _SLO.fullmatch(key) is not None


def why_no_slo(key: str) -> str | None:
    """What is wrong with a key that is nearly an objective's; None for any other."""
    if match := re.fullmatch(rf"slo\.({'|'.join(SLO_METRICS)})\.p[\d.]+", key):
        return f"percentiles are whole, slo.{match[1]}.p1 to slo.{match[1]}.p99"
    return None


def keys() -> list[str]:
    """Every key of a run's goals; of objectives those at the usual percentiles."""
    slo = [f"slo.{metric}.p{level}" for metric in SLO_METRICS for level in (50, 90, 95, 99)]
    return [*slo, _SLO_SUCCESS, "until", *fields_by_key("until", UntilKeys), *_compare_keys()]


def takes() -> dict[str, str]:
    """What each of them takes."""
    gate = {"gate.metric": "a name of `bench list metrics`", "gate.max_regression": "a share, such as 5%"}
    return {key: _TAKES.get(key, "a duration, such as 500ms") for key in keys()} | gate


def defaults() -> dict[str, str]:
    """Each with its default as it would be given; `-`: none. Of objectives one stands for the others."""
    return {
        "slo.ttft_s.p95": "-",
        "slo.tpot_s.p95": "-",
        "slo.e2e_s.p95": "-",
        _SLO_SUCCESS: "-",
        "until": "-",
        "until.metric": Until.metric,
        "until.budget": f"{Until.budget_s:g}s",
        "compare.margin": f"{100 * CompareTerms.margin_share:g}%",
        "compare.baseline": "the first deployment",
        "compare.metric": ",".join(COMPARED_METRICS),
        "gate.metric": GateTerms.metric,
        "gate.max_regression": f"{100 * GateTerms.max_regression_share:g}%",
    }


def _compare_keys() -> list[str]:
    return [*fields_by_key("compare", CompareKeys), *_LISTS]


def goals(given: Choices) -> Goals:
    """Those of a run. Raises UserError."""
    return Goals(tuple(_objectives(given)), _until(given), compare_terms(given))


def _objectives(given: Choices) -> Iterator[Objective]:
    for key, values in given.items():
        if not is_slo(key):
            continue
        check_single(key, values)
        if match := _SLO.fullmatch(key):
            if shown(values[0]).replace(".", "", 1).isdigit():
                value = shown(values[0])
                raise UserError(f"{key}={value}: needs a unit; write {value}ms or {value}s")
            limit_s = decode(key, float, values[0], "_s")
            _check_positive(key, values[0], limit_s)
            yield Objective(match[1], int(match[2]) / 100, limit_s)
        else:
            share = decode(key, float, values[0], "_share")
            if not 0 < share <= 1:
                raise UserError(f"{key}={shown(values[0])}: must be above 0 % and at most 100 %, such as 99%")
            yield Objective(SUCCESS, share)


def _until(given: Choices) -> Until | None:
    beside = [key for key in fields_by_key("until", UntilKeys) if key in given]
    for key in ("until", *beside):
        check_single(key, given.get(key, ()))
    if "until" not in given:
        if beside:
            raise UserError(f"{beside[0]}={shown(given[beside[0]][0])}: is of until; give until=ci:5% too")
        return None
    text = shown(given["until"][0])
    match = _UNTIL.fullmatch(text)
    if match is None:
        raise UserError(f"until={text}: must be of the form ci:5%")
    share = decode("until", float, match[1], "_share")
    _check_part("until", text, share)
    terms = points("until", UntilKeys, given)[0].value
    _check_positive("until.budget", terms.budget_s, terms.budget_s)
    return Until(share, terms.metric, terms.budget_s)


def compare_terms(given: Choices) -> CompareTerms:
    """Of compare.*. Raises UserError."""
    for key in fields_by_key("compare", CompareKeys):
        check_single(key, given.get(key, ()))
    terms = points("compare", CompareKeys, given)[0].value
    _check_part("compare.margin", given.get("compare.margin", ("",))[0], terms.margin_share)
    metrics = tuple(dict.fromkeys(decode("compare.metric", str, v) for v in given.get("compare.metric", ())))
    return CompareTerms(terms.margin_share, terms.baseline, metrics or COMPARED_METRICS)


def only_compare_terms(given: Choices) -> CompareTerms:
    """Of a command that takes compare.* keys alone. Raises UserError."""
    _check_only(given, _compare_keys())
    return compare_terms(given)


def gate_terms(given: Choices) -> GateTerms:
    """Of `bench gate`, which takes gate.* keys alone. Raises UserError."""
    own = list(fields_by_key("gate", GateTerms))
    _check_only(given, own)
    for key in own:
        check_single(key, given.get(key, ()))
    terms: GateTerms = points("gate", GateTerms, given)[0].value
    if not 0 <= terms.max_regression_share < 1:
        value = shown(given["gate.max_regression"][0])
        raise UserError(f"gate.max_regression={value}: must be 0 % or more and less than 100 %, such as 5%")
    return terms


def search_keys() -> list[str]:
    """The keys of `bench search` alone."""
    return list(fields_by_key("search", SearchTerms))


def search_terms(given: Choices) -> SearchTerms:
    """Of search.*; the ends of the range are filled in. Raises UserError."""
    for key in search_keys():
        check_single(key, given.get(key, ()))
    terms: SearchTerms = points("search", SearchTerms, given)[0].value
    usual = {"concurrency": (1.0, 1024.0), "rate": (_lowest_rate(given), 1000.0)}[terms.over]
    lowest = usual[0] if terms.lowest is None else terms.lowest
    highest = usual[1] if terms.highest is None else terms.highest
    if not 0 < lowest < highest:
        raise UserError(
            f"search.lowest={lowest:g}, search.highest={highest:g}: must be above 0, and in order"
        )
    if terms.over == "concurrency" and (lowest % 1 or highest % 1):
        raise UserError(f"search.lowest={lowest:g}, search.highest={highest:g}: users are whole numbers")
    _check_part("search.precision", given.get("search.precision", ("",))[0], terms.precision_share)
    if terms.trials < 1:
        raise UserError(f"search.trials={terms.trials}: must be 1 or more")
    return replace(terms, lowest=lowest, highest=highest)


def _lowest_rate(given: Choices) -> float:
    """Where a search of rates begins: a window with hardly a conversation in it says nothing."""
    given_s = [
        decode("load.duration", float, v, "_s") for v in given.get("load.duration", ()) if v is not None
    ]
    shortest_s = min(given_s, default=Load.duration_s or 0.0)
    return max(0.1, float(f"{_CONVERSATIONS_A_WINDOW / shortest_s:.1g}"))


def _check_only(given: Choices, own: Sequence[str]) -> None:
    for key, values in given.items():
        if key not in own:
            raise UserError(f"{key}={shown(values[0])}: no such key here; choose from {', '.join(own)}")


def _check_positive(key: str, given: Scalar, value: float) -> None:
    if value <= 0:
        raise UserError(f"{key}={shown(given)}: must be more than 0")


def _check_part(key: str, given: Scalar, share: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"{key}={shown(given)}: must be more than 0 % and less than 100 %, such as 5%")
