"""A chart's finding as its title, where verdicts support one; None where nothing is to be said."""

import itertools
from collections.abc import Mapping, Sequence

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of
from reports.stats.family import Kind
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decisions import SECONDARY, decisions_of
from reports.words.verdict_words import capital, margin_text, title_of


def title_at(run: Run, name: str, groups: Sequence[Group]) -> str | None:
    """Return who leads in a value (`ttft_s.p50`), and at which loads around the one that is decided.

    `groups`: some or all loads of one family of a scenario.
    """
    if len({group.model for group in groups}) != 1:
        return None
    labels = list(dict.fromkeys(group.deployment for group in groups))
    loads = dict.fromkeys(group.load for group in sorted(groups, key=lambda group: group.level))
    scenario, model = groups[0].scenario, groups[0].model
    kinds = {load: _kinds(run, scenario, load, name, labels) for load in loads}
    leaders = {
        load: next((label for label, against in found.items() if against == {"better"}), None)
        for load, found in kinds.items()
    }
    cases = (made for made in decisions_of(run) if (made.case.scenario, made.case.model) == (scenario, model))
    made = next((made for made in cases if made.case.load in loads), None)
    told = made.case.load if made else list(loads)[-1]
    if made and (label := made.leaders.get(name)):
        if made.slo_row and made.left_out:
            return f"{label} {_superlative(name)} within the SLO at {told}"
        leaders[told] = label
    elif made and made.best and name in (made.metric, *SECONDARY):
        leaders[told] = None  # the verdicts are of each pair, at another level than the decision
    if leaders[told]:
        return f"{leaders[told]} {_superlative(name)} {where_it_leads(leaders, told)}"
    if set.union(*kinds[told].values()) == {"same"}:
        margin = margin_text(run.record.compare.margin_share)
        return f"{capital(title_of(name))}: the same within {margin} at {told}"
    return None


def _kinds(run: Run, scenario: str, load: str, name: str, labels: Sequence[str]) -> dict[str, set[Kind]]:
    told, found = comparisons_of(run), {}
    for label in labels:
        verdicts = [told.of(scenario, load, name, label, other) for other in labels if other != label]
        found[label] = {verdict.kind if verdict else "none" for verdict in verdicts}
    return found


def _superlative(name: str) -> str:
    verb = "gives the most" if metric_of(name).better == "higher" else "has the lowest"
    return f"{verb} {title_of(name)}"


def where_it_leads(leaders: Mapping[str, str | None], told: str) -> str:
    """Return at which loads around the one that is told the same one leads: `at every load`, `up to 16
    users`, `from 16 users on`, `at 16 users`, `from 4 to 16 users`. `leaders`: lowest load first."""
    loads = list(leaders)
    spans = [list(span) for _, span in itertools.groupby(loads, key=leaders.get)]
    first, *rest = next(span for span in spans if told in span)
    last = rest[-1] if rest else first
    if first == last:
        return f"at {first}"
    if first == loads[0]:
        return "at every load" if last == loads[-1] else f"up to {last}"
    return f"from {first} on" if last == loads[-1] else f"from {first} to {last}"
