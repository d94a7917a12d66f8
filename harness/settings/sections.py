"""Read the sections of keys that say what a run is for (`slo`, `until`, `compare` ...)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, cast

from serving_bench.harness.contracts import (
    STARTS_NEEDED,
    SUCCESS,
    CompareTerms,
    GateTerms,
    Load,
    Objective,
    QualityTerms,
    RaceTerms,
    Repeats,
    SearchTerms,
    SloTerms,
    Until,
)
from serving_bench.harness.errors import UserError, choose_from, refuse_first
from serving_bench.harness.settings.decoding import (
    ALONE,
    Choices,
    decode,
    decode_all,
    fields_by_key,
    only_value,
    shown,
    single,
)

# The metrics that each request has a value of.
_SLO_METRICS = ("ttft_s", "tpot_s", "e2e_s")
_SLO = re.compile(rf"slo\.({'|'.join(_SLO_METRICS)})\.p([1-9]\d?)")
_REPEATS = re.compile(r"(\d{1,12})(?:\.\.(\d{1,12}))?")
_MOST_REPEATS = 1000
_SLO_FIELDS = fields_by_key("slo", SloTerms)
_SLO_SUCCESS = f"slo.{SUCCESS}"
# Objectives of a deployment, not of its requests, with the keys that say the same.
_OF_DEPLOYMENTS = {"slo.kl_nats.mean": "quality.limit", "slo.tasks.score": "quality.least_score"}
_QUALITY = fields_by_key("quality", QualityTerms)
_OFF = (("off",), (False,))  # YAML takes off for false
_OF_TASKS = ("quality.tasks", "quality.tasks_budget", "quality.least_score", "slo.tasks.score")
# At the lowest rate of a search. A window with fewer conversations says little.
_CONVERSATIONS_A_WINDOW = 4
# run.budget=auto of a run with the default engines, quantizations, repeats and loads; the least of others.
DEFAULT_BUDGET_S = 480.0
_NO_PART_OF_A_PLAN = (
    "scenario", "seed", "device", "guard", "price", "slo", "compare", "race", "run", "quality"
)  # fmt: skip
# Every key of an objective, at the usual percentiles.
OBJECTIVES = [
    *_SLO_FIELDS,
    *(f"slo.{metric}.p{level}" for metric in _SLO_METRICS for level in (50, 90, 95, 99)),
]


def is_slo(key: str) -> bool:
    """Return whether a key is an objective: slo.ttft_s.p95 (any whole percentile) or slo.success."""
    return key == _SLO_SUCCESS or _SLO.fullmatch(key) is not None


def objectives(given: Choices) -> Iterator[Objective]:
    for key in filter(is_slo, given):
        value = only_value(key, given)
        text, match = shown(value), _SLO.fullmatch(key)
        if match is None:
            yield Objective(SUCCESS, decode(key, _SLO_FIELDS[key], value))
            continue
        limit_s = decode(key, _SLO_FIELDS[f"slo.{match[1]}.p95"], value)
        if limit_s <= 0:
            raise UserError(f"{key}={text}: must be more than 0")
        metric = cast(Literal["ttft_s", "tpot_s", "e2e_s"], match[1])
        yield Objective(metric, int(match[2]) / 100, limit_s)


def until(given: Choices) -> Until | None:
    """Return the rule by which repeats are added, if there is one. Raises UserError."""
    if "until" not in given:
        for key in fields_by_key("until", Until):
            if key in given:
                raise UserError(f"{key}={shown(given[key][0])}: belongs to until; give until=ci:5% too")
        return None
    text = shown(only_value("until", given))
    if not text.startswith("ci:"):
        raise UserError(f"until={text}: must be of the form ci:5%")
    share = decode("until", float, text.removeprefix("ci:"), before="ci:")
    return single("until", Until, given, half_width_share=share)


def repeats(given: Choices) -> Repeats:
    """Return how often each deployment is started, at least and at most. Raises UserError."""
    value = only_value("repeats", given) if "repeats" in given else ALONE["repeats"].default
    text = shown(int(value) if isinstance(value, float) and value.is_integer() else value)
    what, as_in = f"repeats={text}", "give LEAST..MOST, such as 3..12, or one number for all"
    match = _REPEATS.fullmatch(text)
    if match is None:
        raise UserError(f"{what}: {as_in}")
    least, most = int(match[1]), int(match[2] or match[1])
    refuse_first(
        (not 1 <= most <= _MOST_REPEATS, f"{what}: must be from 1 to {_MOST_REPEATS}"),
        (match[2] and least >= most, f"{what}: the most must be above the least; {as_in}"),
        (match[2] and least < STARTS_NEEDED, f"{what}: a race needs {STARTS_NEEDED} repeats at least"),
    )
    return Repeats(least, most)


def race_terms(given: Choices) -> RaceTerms:
    return single("race", RaceTerms, given)


def budget_s(given: Choices) -> float | None:
    """Return the seconds in which a run should end, None if its plan decides (auto). Raises UserError."""
    if "run.budget" not in given or (value := only_value("run.budget", given)) == "auto":
        is_default_plan = all(key.partition(".")[0] in _NO_PART_OF_A_PLAN for key in given)
        return DEFAULT_BUDGET_S if is_default_plan else None
    what = f"run.budget={shown(value)}"
    refuse_first(("until" in given, f"{what}: has no effect with until; give until.budget instead"))
    return float(decode("run.budget", float, value))


def compare_terms(given: Choices) -> CompareTerms:
    return single("compare", CompareTerms, given)


def quality_terms(given: Choices) -> QualityTerms:
    """Return what is asked of each deployment beside its speed. Raises UserError."""
    kinds = decode_all("quality", ALONE["quality"], given.get("quality", ("auto",)))
    for alone in ("auto", "off"):
        refuse_first((len(kinds) > 1 and alone in kinds, f"quality={','.join(kinds)}: {alone} stands alone"))
    if kinds == ("off",):
        kinds = ()
    for key in (key for key in given if key.startswith("quality.") or key in _OF_DEPLOYMENTS):
        if not kinds or (key in _OF_TASKS and "tasks" not in kinds):
            more = "give quality=fidelity,tasks" if kinds else "leave out quality=off"
            raise UserError(f"{key}={shown(given[key][0])}: would have no effect; {more}")
    chosen = dict(given)
    for objective, key in _OF_DEPLOYMENTS.items():
        if objective in given and key in given:
            raise UserError(f"{objective} and {key} are one limit; give one of them")
        if objective in given or key in given:
            limit = given.get(objective, given.get(key, ()))
            chosen[key] = (None,) if limit in _OFF else limit
            if objective in given:
                # Else an error would name the other key, which was not given.
                decode(objective, _QUALITY[key], only_value(objective, {objective: chosen[key]}))
    return single("quality", QualityTerms, chosen, asked=kinds)


def only_compare_terms(given: Choices) -> CompareTerms:
    """Return the terms of a command that takes only compare.* keys. Raises UserError."""
    _check_only(given, fields_by_key("compare", CompareTerms))
    return compare_terms(given)


def gate_terms(given: Choices) -> GateTerms:
    """Return the terms of `bench gate`, which takes gate.* and objectives of quality. Raises UserError."""
    _check_only(given, [*fields_by_key("gate", GateTerms), *_OF_DEPLOYMENTS])
    declared = (
        (key, replace(_QUALITY[term], kind=float)) for key, term in _OF_DEPLOYMENTS.items() if key in given
    )
    limits = {key: decode(key, field, only_value(key, given)) for key, field in declared}
    return single("gate", GateTerms, given, limits=limits)


def search_terms(given: Choices) -> SearchTerms:
    """Return the terms of search.*, with the ends of the range filled in. Raises UserError."""
    terms = single("search", SearchTerms, given)
    lowest, highest = (1.0, 1024.0) if terms.over == "concurrency" else (_lowest_rate(given), 1000.0)
    lowest = lowest if terms.lowest is None else terms.lowest
    highest = highest if terms.highest is None else terms.highest
    ends = f"search.lowest={lowest:g}, search.highest={highest:g}"
    refuse_first(
        (not 0 < lowest < highest, f"{ends}: must be above 0, and in order"),
        (terms.over == "concurrency" and (lowest % 1 or highest % 1), f"{ends}: users are whole numbers"),
    )
    return replace(terms, lowest=lowest, highest=highest)


def _lowest_rate(given: Choices) -> float:
    field = fields_by_key("load", Load)["load.duration"]
    given_s = [decode("load.duration", field, each) for each in given.get("load.duration", ())]
    shortest_s = min(filter(None, given_s), default=Load.duration_s or 0.0)
    return max(0.1, float(f"{_CONVERSATIONS_A_WINDOW / shortest_s:.1g}"))


def _check_only(given: Choices, allowed: Iterable[str]) -> None:
    for key, values in given.items():
        if key not in allowed:
            raise UserError(f"{key}={shown(values[0])}: no such key here; {choose_from(key, allowed)}")
