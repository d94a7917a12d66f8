"""A chart's finding as its title, where verdicts or an SLO support one; None where nothing is to be said."""

import itertools
from collections.abc import Mapping, Sequence

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import metric_of
from reports.stats.family import Kind
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decisions import decisions_of
from reports.verdicts.standings import Row, slo_rows
from reports.words.verdict_words import capital, margin_text, objective_words, title_of

# More deployments than these are counted.
_NAMED_AT_MOST = 2


def title_by_load(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who keeps the objective on a value (`ttft_s.p95`) up to which load, else who leads in it.

    `groups`: the loads of one family of a scenario.
    """
    return _by_slo(run, name, groups) or title_at(run, name, groups)


def title_at(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who leads in a value, and at which loads around the one that is decided."""
    if len({group.model for group in groups}) != 1:
        return None
    labels = list(dict.fromkeys(group.deployment for group in groups))
    loads = dict.fromkeys(group.load for group in sorted(groups, key=lambda group: group.level))
    kinds = {load: _kinds(run, groups[0].scenario, load, name, labels) for load in loads}
    leaders = {
        load: next((label for label, against in found.items() if against == {"better"}), None)
        for load, found in kinds.items()
    }
    key = (groups[0].scenario, groups[0].model)
    cases = (made for made in decisions_of(run) if (made.case.scenario, made.case.model) == key)
    made = next((made for made in cases if made.case.load in loads), None)
    told = made.case.load if made else list(loads)[-1]
    if made and (label := made.leaders.get(name)):
        if made.slo_row and made.left_out:
            return f"{label} {_superlative(name)} within the SLO at {told}"
        leaders[told] = label
    if leaders[told]:
        return f"{leaders[told]} {_superlative(name)} {where_it_leads(leaders, told)}"
    if set.union(*kinds[told].values()) == {"same"}:
        margin = margin_text(run.record.compare.margin_share)
        return f"{capital(title_of(name))}: the same within {margin} at {told}"
    return None


def _kinds(run: Run, scenario: str, load: str, name: str, labels: Sequence[str]) -> dict[str, set[Kind]]:
    """Return by deployment the kinds of its verdicts against each other one."""
    told, found = comparisons_of(run), {}
    for label in labels:
        verdicts = [told.of(scenario, load, name, label, other) for other in labels if other != label]
        found[label] = {verdict.kind if verdict else "none" for verdict in verdicts}
    return found


def _superlative(name: str) -> str:
    verb = "gives the most" if metric_of(name).better == "higher" else "has the lowest"
    return f"{verb} {title_of(name)}"


def where_it_leads(leaders: Mapping[str, str | None], told: str) -> str:
    """Return at which loads around the one that is told the same one leads. `leaders`: lowest load first."""
    loads = list(leaders)
    spans = [list(span) for _, span in itertools.groupby(loads, key=leaders.get)]
    own = next(span for span in spans if told in span)
    return span_of_loads(loads, loads.index(own[0]), loads.index(own[-1]))


def span_of_loads(loads: Sequence[str], first: int, last: int) -> str:
    """Return `at every load`, `up to 16 users`, `from 16 users on`, `at 16 users`, `from 4 to 16 users`."""
    is_to_end = last == len(loads) - 1
    if first == last:
        return f"at {loads[first]}"
    if first == 0:
        return "at every load" if is_to_end else f"up to {loads[last]}"
    return f"from {loads[first]} on" if is_to_end else f"from {loads[first]} to {loads[last]}"


# --- by the SLO ------------------------------------------------------------------------------------


def _by_slo(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who keeps an objective, or of goodput all of them, from the lowest load up to which."""
    keys = {(group.scenario, group.model, group.load) for group in groups}
    rows = [row for row in slo_rows(run) if (row.scenario, row.model, row.load) in keys]
    asked = next((each for each in run.record.slo if each.name == name and each.limit_s is not None), None)
    if len({row.model for row in rows}) != 1 or not (asked or name == "goodput_per_s"):
        return None
    labels = dict.fromkeys(group.deployment for group in groups if group.deployment not in stand_ins(run))
    kept = {label: [_keeps(row, label, name) for row in rows] for label in labels}
    depths = {label: [*found, False].index(False) for label, found in kept.items()}
    deepest = max(depths.values(), default=0)
    if not deepest:
        return None
    best = [label for label, depth in depths.items() if depth == deepest]
    who = " and ".join(best) if len(best) <= _NAMED_AT_MOST else f"{len(best)} of {len(labels)} deployments"
    what = f"{objective_words(asked)} within {1e3 * (asked.limit_s or 0):g} ms" if asked else "the SLO"
    verb = ("hold" if asked else "keep") + ("s" if len(best) == 1 else "")
    return f"{who} {verb} {what} {span_of_loads([row.load for row in rows], 0, deepest - 1)}"


def _keeps(row: Row, label: str, name: str) -> bool:
    judged = next((each.judged for each in row.standings if each.label == label), None)
    if judged is None or name == "goodput_per_s" or judged.too_high:
        return judged is not None and judged.verdict == "kept"
    return any(each.objective.name == name and each.verdict == "kept" for each in judged.attained)
