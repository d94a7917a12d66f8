"""A chart's finding as its title, where verdicts or an SLO support one; None where nothing is to be said.

Goes by the run's one family of verdicts and by which objectives were kept, never by values alone. What is
named is named by its label. Draws nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import metric_of
from reports.stats.family import Told
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decision import Row, decision_rows
from reports.verdicts.decisions import decisions_of
from reports.verdicts.load_cases import told_first
from reports.verdicts.picks import State
from reports.words.decision_words import objective_words
from reports.words.said import capital
from reports.words.verdict_words import margin_text, title_of

# Longer ones are said shorter where they can be.
LONGEST = 80
_WITH_KERNELS = ("deployment with its own kernels", "deployments with their own kernels")


@dataclass(frozen=True)
class At:
    """Deployments of one model beside each other at a load. `told`: the verdict on the first of two."""

    load: str
    labels: tuple[str, ...]
    told: Told


# --- of a run --------------------------------------------------------------------------------------


def title_by_load(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Of a value (`ttft_s.p95`) against the loads of one family of a scenario: who keeps the objective on it,
    else who is ahead, else that nothing is proven."""
    return _by_slo(run, name, groups) or _by_verdicts(run, name, groups)


def title_at(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Of a value at one load of a scenario, by verdicts alone."""
    return _by_verdicts(run, name, groups)


def frontier_title(run: Run, groups: Sequence[Group]) -> str | None:
    """Of the loads of one family of a scenario: who is the fastest within the SLO, else who keeps it; without
    an SLO, who gives the most tokens."""
    if not run.record.slo:
        return _by_verdicts(run, "output_tokens_per_s", groups)
    rows = _rows(run, groups)
    has_several = any(len(row.standings) > 1 for row in rows)
    fastest = (fastest_within(rows) or _decided(run, "output_tokens_per_s", groups)) if has_several else None
    return fastest or _by_slo(run, "goodput_per_s", groups)


def _by_verdicts(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    models = {group.model for group in groups}
    if len(models) != 1 or not groups:
        return None
    cases = [
        At(load, tuple(g.deployment for g in found), _told(run, name, found)) for load, found in _at(groups)
    ]
    baseline = comparisons_of(run).baselines[models.pop()]
    told = {(case.scenario, case.load) for case in told_first(run)}
    first = next((load for load, found in _at(groups) if (found[0].scenario, load) in told), None)
    decided = _decided(run, name, groups)
    return by_verdicts(name, cases, baseline, run.record.compare.margin_share, first, decided)


def _decided(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who is named for a metric at the load told first, if that is one of these loads."""
    keys = {(group.scenario, group.model, group.load) for group in groups}
    for made in decisions_of(run):
        case = made.case
        is_primary = made.metric == name and made.kind in ("named", "slight")
        label = made.groups[0].deployment if is_primary else made.leaders.get(name)
        if label and (case.scenario, case.model, case.load) in keys:
            within = " within the SLO" if made.slo_row and made.left_out else ""
            return f"{label} {_superlative(name)}{within} at {case.load}"
    return None


def _at(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """By load, from the lowest on."""
    by_load: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.level):
        by_load.setdefault(group.load, []).append(group)
    return list(by_load.items())


def _told(run: Run, name: str, groups: Sequence[Group]) -> Told:
    first = groups[0]
    return lambda a, b: comparisons_of(run).of(first.scenario, first.load, name, a, b)


def _rows(run: Run, groups: Sequence[Group]) -> list[Row]:
    """What the SLO decides at the loads of these groups, from the lowest on."""
    keys = {(group.scenario, group.model, group.load) for group in groups}
    return [row for row in decision_rows(run) if (row.scenario, row.model, row.load) in keys]


def _by_slo(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Who keeps the objective that a value has, of goodput the whole SLO."""
    rows = _rows(run, groups)
    if len({row.model for row in rows}) != 1:
        return None
    states = {
        label: [_state(row, label, name) for row in rows]
        for label in dict.fromkeys(g.deployment for g in groups)
    }
    fakes = [label for label in stand_ins(run) if label in states]
    states = {label: found for label, found in states.items() if label not in fakes}
    if name == "goodput_per_s":
        return by_objective("the SLO", "keep", states, [row.load for row in rows], is_whole=not fakes)
    asked = next((each for each in run.record.slo if each.name == name and each.limit_s is not None), None)
    if asked is None or asked.limit_s is None:
        return None
    what = f"{objective_words(asked)} within {1e3 * asked.limit_s:g} ms"
    return by_objective(what, "hold", states, [row.load for row in rows], is_whole=not fakes)


def _state(row: Row, label: str, name: str) -> State:
    """What a deployment makes of one objective at a load; of goodput, of all of them."""
    standing = next((each for each in row.standings if each.label == label), None)
    if standing is None or standing.judged is None:
        return "unknown"
    if name == "goodput_per_s":
        return standing.state
    if standing.judged.too_high:
        return standing.judged.verdict
    found = [each.verdict for each in standing.judged.attained if each.objective.name == name]
    if not found:
        return "unknown"
    return "unclear" if standing.judged.is_disturbed and found[0] == "broken" else found[0]


# --- by verdicts -----------------------------------------------------------------------------------


def by_verdicts(
    name: str,
    cases: Sequence[At],
    baseline: str,
    margin_share: float,
    opens_at: str | None = None,
    decided: str | None = None,
) -> str | None:
    """From the lowest load to the highest: who is better than every other, and at which loads around the one
    told first, `opens_at` (without it the highest that most deployments have); else what is proven there
    against the baseline."""
    most = max((len(case.labels) for case in cases), default=0)
    whole = [case for case in cases if len(case.labels) == most]
    if most < 2:
        return None
    loads = [case.load for case in whole]
    leaders = [leader(case.labels, case.told) for case in whole]
    told = loads.index(opens_at) if opens_at in loads else len(loads) - 1
    at = next((place for place in (told, len(loads) - 1, 0) if leaders[place]), None)
    if at is None:
        return decided or _against(name, whole[told], baseline, margin_share)
    first = last = at
    while first and leaders[first - 1] == leaders[at]:
        first -= 1
    while last + 1 < len(leaders) and leaders[last + 1] == leaders[at]:
        last += 1
    return f"{leaders[at]} {_superlative(name)} {span_of_loads(loads, first, last)}"


def leader(labels: Sequence[str], told: Told) -> str | None:
    """The one that is proven better than every other."""
    for label in labels:
        others = [told(label, other) for other in labels if other != label]
        if others and all(verdict is not None and verdict.kind == "better" for verdict in others):
            return label
    return None


def _superlative(name: str) -> str:
    verb = "gives the most" if metric_of(name).better == "higher" else "has the lowest"
    return f"{verb} {title_of(name)}"


def span_of_loads(loads: Sequence[str], first: int, last: int) -> str:
    """`at every load`, `up to 16 users`, `from 16 users on`, `at 16 users`, `from 4 users to 16 users`."""
    whole = len(loads) - 1
    if first == last:
        return f"at {loads[first]}"
    if (first, last) == (0, whole):
        return "at every load"
    if first == 0:
        return f"up to {loads[last]}"
    return f"from {loads[first]} on" if last == whole else f"from {loads[first]} to {loads[last]}"


def _against(name: str, case: At, baseline: str, margin_share: float) -> str | None:
    """What is proven of the others against the baseline at one load."""
    others = [label for label in case.labels if label != baseline]
    found = {label: verdict for label in others if (verdict := case.told(label, baseline)) is not None}
    kinds = [verdict.kind for verdict in found.values()]
    if baseline not in case.labels or len(found) < len(others) or "none" in kinds:
        return None
    better = [label for label, verdict in found.items() if verdict.kind == "better"]
    title, word = title_of(name), metric_of(name).words[0]
    if better:
        who = better[0] if len(better) == 1 else f"{len(better)} of the other {len(others)}"
        verb = "is" if len(better) == 1 else "are"
        return f"{who} {verb} proven {word} than {baseline} in {title} at {case.load}"
    if "worse" in kinds:
        return f"None is proven {word} than {baseline} in {title} at {case.load}"
    is_pair = len(others) == 1
    if set(kinds) == {"same"}:
        where = f"within {margin_text(margin_share)} at {case.load}"
        return (
            f"{capital(title)}: the same {where}"
            if is_pair
            else f"{capital(title)}: all as {baseline} {where}"
        )
    whom = "" if is_pair else f" from {baseline}"
    return f"No difference{whom} in {title} is proven at {case.load}"


# --- by the SLO ------------------------------------------------------------------------------------


def by_objective(
    what: str,
    verb: str,
    states: Mapping[str, Sequence[State]],
    loads: Sequence[str],
    *,
    is_whole: bool = True,
) -> str | None:
    """Who keeps an objective (`what`) at all loads from the lowest up to which; `states`: by deployment, one
    per load. `verb` as of several: `hold`. `is_whole`: whether none was left out because its kernels are not
    its own."""
    one, many = ("deployment", "deployments") if is_whole else _WITH_KERNELS
    depths = {label: _depth(found) for label, found in states.items()}
    deepest = max(depths.values(), default=0)
    if not deepest:
        broken = [place for place in range(len(loads)) if all(s[place] == "broken" for s in states.values())]
        if not states or 0 not in broken:
            return None
        where = "at any load" if len(broken) == len(loads) > 1 else f"at {loads[0]}"
        who = f"{next(iter(states))} does not {verb}" if len(states) == 1 else f"No {one} {verb}s"
        return f"{who} {what} {where}"
    last = deepest - 1
    best = [label for label, depth in depths.items() if depth == deepest]
    others = [found[last] for label, found in states.items() if label not in best]
    where = (
        "at every load" if deepest == len(loads) > 1 else f"up to {loads[last]}" if last else f"at {loads[0]}"
    )
    rest = f"{what} {where}"
    if len(best) == 1:
        is_only = is_whole and others and all(state == "broken" for state in others)
        only = "Only " if is_only else ""
        return f"{only}{best[0]} {verb}s {rest}"
    if len(best) == len(states):
        return f"Every {one} {verb}s {rest}"
    named = f"{', '.join(best[:-1])} and {best[-1]} {verb} {rest}"
    return named if len(named) <= LONGEST else f"{len(best)} of {len(states)} {many} {verb} {rest}"


def _depth(found: Sequence[State]) -> int:
    """How many loads from the lowest on it keeps, without one between that it may not."""
    return next((place for place, state in enumerate(found) if state != "kept"), len(found))


def fastest_within(rows: Sequence[Row]) -> str | None:
    """The one that is proven the fastest of those that keep the SLO, over which loads, the highest at which
    any keeps it being the last; None where there is no such one."""
    kept = [place for place, row in enumerate(rows) if row.labels("kept")]
    if not kept or len({row.model for row in rows}) != 1:
        return None
    loads, last = [row.load for row in rows], kept[-1]
    ahead = _fastest(rows[last])
    if ahead is None:
        return None
    first = last
    while first and _fastest(rows[first - 1]) == ahead:
        first -= 1
    where = span_of_loads(loads, first, last)
    said = f"{ahead} is the fastest within the SLO {where}"
    beyond = rows[last + 1 :]
    if beyond and all(each.state == "broken" for row in beyond for each in row.standings):
        whole = f"{said}; beyond, none keeps it"
        return whole if len(whole) <= LONGEST else said
    return said


def _fastest(row: Row) -> str | None:
    """The proven one; None where it stands alone beside others of which it is not clear."""
    found = row.picks.get("fastest")
    if found is None or not found.is_proven or found.unclear or found.left_out:
        return None
    kept = row.labels("kept")
    if found.best.label not in kept or (len(kept) == 1 and row.labels("unclear", "unknown")):
        return None
    return found.best.label
