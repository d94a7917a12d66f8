"""A chart's finding as its title, where verdicts or an SLO support one; None where nothing is to be said."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import metric_of
from reports.measures.written import several
from reports.stats.family import Told
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decisions import decisions_of
from reports.verdicts.load_cases import told_first
from reports.verdicts.standings import Row, State, slo_rows
from reports.words.said import capital
from reports.words.verdict_words import margin_text, objective_words, title_of

# Longer ones are said shorter where they can be.
LONGEST = 80


@dataclass(frozen=True)
class At:
    """Deployments of one model beside each other at a load. `told`: the verdict on the first of two."""

    load: str
    labels: tuple[str, ...]
    told: Told


# --- of a run --------------------------------------------------------------------------------------


def title_by_load(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who keeps the objective on a value (`ttft_s.p95`) up to which load, else who leads in it.

    `groups`: the loads of one family of a scenario.
    """
    return _by_slo(run, name, groups) or title_at(run, name, groups)


def frontier_title(run: Run, groups: Sequence[Group]) -> str | None:
    """Return who gives the most tokens; with an SLO within it, else who keeps it up to which load."""
    if not run.record.slo:
        return title_at(run, "output_tokens_per_s", groups)
    return _decided(run, "output_tokens_per_s", groups) or _by_slo(run, "goodput_per_s", groups)


def title_at(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who leads in a value by the verdicts, and at which of these groups' loads."""
    if len({group.model for group in groups}) != 1:
        return None
    by_load: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.level):
        by_load.setdefault(group.load, []).append(group)
    scenario, compared = groups[0].scenario, comparisons_of(run)

    def at(load: str, found: Sequence[Group]) -> At:
        labels = tuple(group.deployment for group in found)
        return At(load, labels, lambda a, b: compared.of(scenario, load, name, a, b))

    first = next((case.load for case in told_first(run) if case.scenario == scenario), None)
    cases = [at(load, found) for load, found in by_load.items()]
    terms, decided = run.record.compare, _decided(run, name, groups)
    return by_verdicts(name, cases, terms.baseline, terms.margin_share, first, decided)


def _decided(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who is named for a metric at the load told first, if that is one of these loads."""
    keys = {(group.scenario, group.model, group.load) for group in groups}
    for made in decisions_of(run):
        case = made.case
        if len(made.groups) < 2 or (case.scenario, case.model, case.load) not in keys:
            continue
        is_primary = made.metric == name and made.kind in ("named", "slight")
        if label := made.groups[0].deployment if is_primary else made.leaders.get(name):
            within = " within the SLO" if made.slo_row and made.left_out else ""
            return f"{label} {_superlative(name)}{within} at {case.load}"
    return None


def _by_slo(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    keys = {(group.scenario, group.model, group.load) for group in groups}
    rows = [row for row in slo_rows(run) if (row.scenario, row.model, row.load) in keys]
    asked = next((each for each in run.record.slo if each.name == name and each.limit_s is not None), None)
    if len({row.model for row in rows}) != 1 or not (asked or name == "goodput_per_s"):
        return None
    what, verb = "the SLO", "keep"
    if asked and asked.limit_s is not None:
        what, verb = f"{objective_words(asked)} within {1e3 * asked.limit_s:g} ms", "hold"
    labels = dict.fromkeys(group.deployment for group in groups)
    fakes = stand_ins(run).keys() & labels.keys()
    states = {label: [_state(row, label, name) for row in rows] for label in labels if label not in fakes}
    return by_objective(what, verb, states, [row.load for row in rows], is_whole=not fakes)


def _state(row: Row, label: str, name: str) -> State:
    """Return what a deployment makes of one objective at a load; of goodput, of all of them."""
    standing = next((each for each in row.standings if each.label == label), None)
    if standing is None or standing.judged is None:
        return "unknown"
    if name == "goodput_per_s" or standing.judged.too_high:
        return standing.state
    found = next((e.verdict for e in standing.judged.attained if e.objective.name == name), None)
    return "unclear" if found is None or (standing.judged.is_disturbed and found == "broken") else found


# --- by verdicts -----------------------------------------------------------------------------------


def by_verdicts(
    name: str,
    cases: Sequence[At],
    baseline: str | None,
    margin_share: float,
    opens_at: str | None = None,
    decided: str | None = None,
) -> str | None:
    """Return who is better than every other, and at which loads around the one told first (`opens_at`).

    `cases`: from the lowest load to the highest; those with the most deployments count. Without a leader by
    verdicts, what is `decided`, else what is proven at `opens_at`, against the baseline if one was asked for.
    """
    most = max((len(case.labels) for case in cases), default=0)
    whole = [case for case in cases if len(case.labels) == most]
    if most < 2:
        return None
    loads = [case.load for case in whole]
    leaders = [leader(case.labels, case.told) for case in whole]
    told = loads.index(opens_at) if opens_at in loads else len(loads) - 1
    at = next((place for place in (told, len(loads) - 1, 0) if leaders[place]), None)
    if at is None:
        return decided or _without_leader(name, whole[told], baseline, margin_share)
    first = last = at
    while first and leaders[first - 1] == leaders[at]:
        first -= 1
    while last + 1 < len(leaders) and leaders[last + 1] == leaders[at]:
        last += 1
    return f"{leaders[at]} {_superlative(name)} {span_of_loads(loads, first, last)}"


def _superlative(name: str) -> str:
    verb = "gives the most" if metric_of(name).better == "higher" else "has the lowest"
    return f"{verb} {title_of(name)}"


def leader(labels: Sequence[str], told: Told) -> str | None:
    """Return the one that is proven better than every other."""
    for label in labels:
        others = [told(label, other) for other in labels if other != label]
        if others and all(verdict is not None and verdict.kind == "better" for verdict in others):
            return label
    return None


def span_of_loads(loads: Sequence[str], first: int, last: int) -> str:
    """Return `at every load`, `up to 16 users`, `from 16 users on`, `at 16 users`, `from 4 to 16 users`."""
    whole = len(loads) - 1
    if first == last:
        return f"at {loads[first]}"
    if (first, last) == (0, whole):
        return "at every load"
    if first == 0:
        return f"up to {loads[last]}"
    return f"from {loads[first]} on" if last == whole else f"from {loads[first]} to {loads[last]}"


def _without_leader(name: str, case: At, baseline: str | None, margin_share: float) -> str | None:
    title, has_baseline = title_of(name), baseline in case.labels
    pairs = itertools.permutations(case.labels, 2)
    told = [(a, case.told(a, b)) for a, b in pairs if not has_baseline or b == baseline]
    kinds = {verdict.kind if verdict else "none" for _, verdict in told}
    if "none" in kinds:
        return None
    if kinds == {"same"}:
        return f"{capital(title)}: the same within {margin_text(margin_share)} at {case.load}"
    if not has_baseline:
        return f"No leader in {title} is proven at {case.load}"
    better = [label for label, verdict in told if verdict and verdict.kind == "better"]
    verb = "is" if len(better) < 2 else "are"
    word = metric_of(name).words[0]
    return f"{several(better) or 'None'} {verb} proven {word} than {baseline} in {title} at {case.load}"


# --- by the SLO ------------------------------------------------------------------------------------


def by_objective(
    what: str,
    verb: str,
    states: Mapping[str, Sequence[State]],
    loads: Sequence[str],
    *,
    is_whole: bool = True,
) -> str | None:
    """Return who keeps an objective (`what`) at all loads from the lowest up to which.

    `states`: by deployment, one per load. `verb`: as of several, `hold`. `is_whole`: no deployment was left
    out because its kernels are not its own, so that "only", "every" and "no" may be said.
    """
    depths = {label: _depth(found) for label, found in states.items()}
    deepest = max(depths.values(), default=0)
    if not deepest:
        broken = [place for place in range(len(loads)) if all(s[place] == "broken" for s in states.values())]
        if not states or not is_whole or 0 not in broken:
            return None
        where = "at any load" if len(broken) == len(loads) > 1 else f"at {loads[0]}"
        who = f"{next(iter(states))} does not {verb}" if len(states) == 1 else f"No deployment {verb}s"
        return f"{who} {what} {where}"
    rest = f"{what} {span_of_loads(loads, 0, deepest - 1)}"
    best = [label for label, depth in depths.items() if depth == deepest]
    others = [found[deepest - 1] for label, found in states.items() if label not in best]
    if len(best) == 1:
        is_only = is_whole and others and all(state == "broken" for state in others)
        return f"{'Only ' if is_only else ''}{best[0]} {verb}s {rest}"
    if not others and is_whole:
        return f"Every deployment {verb}s {rest}"
    named = f"{', '.join(best[:-1])} and {best[-1]} {verb} {rest}"
    return named if len(named) <= LONGEST else f"{len(best)} of {len(states)} deployments {verb} {rest}"


def _depth(found: Sequence[State]) -> int:
    """Return how many loads it keeps from the lowest on."""
    return next((place for place, state in enumerate(found) if state != "kept"), len(found))
