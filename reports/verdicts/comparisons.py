"""Which deployments of a run are compared, on which metrics, and what is said of each pair."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate
from reports.stats.family import STARTS_NEEDED, Kind, Verdict, decide
from reports.verdicts.pairs import Pair, question_of

# Compared whatever was asked for: answers and picks go by them.
DECIDED_BY = ("output_tokens_per_s", "memory_peak_bytes")
_MIRRORED: dict[Kind, Kind] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Compared:
    """One comparison: `a` over `b`, labels of deployments, on a metric under a load of a scenario."""

    scenario: str
    load: str
    metric: str
    a: str
    b: str
    verdict: Verdict


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of a run.

    `rows`: those with the reference of each metric and load. `baselines`: by model, the asked baseline, else
    the plan's first label. `family`: the most verdicts that were decided together. `why_none`: why the whole
    run gives no verdict; None where it may.
    """

    rows: tuple[Compared, ...]
    baselines: dict[str, str]
    family: int
    why_none: str | None
    by_key: Mapping[tuple[str, str, str, str, str], Verdict]

    def of(self, scenario: str, load: str, metric: str, a: str, b: str) -> Verdict | None:
        """Return the verdict on `a` against `b`; None where the two were not compared."""
        return self.by_key.get((scenario, load, metric, a, b))


def mirrored(verdict: Verdict) -> Verdict:
    """Return the verdict on the second against the first."""
    if verdict.ratio is None or verdict.low is None or verdict.high is None:
        return verdict
    ratio, low, high = (_inverse(each, verdict.is_log) for each in (verdict.ratio, verdict.high, verdict.low))
    return replace(verdict, kind=_MIRRORED.get(verdict.kind, verdict.kind), ratio=ratio, low=low, high=high)


def _inverse(value: float, is_log: bool) -> float:
    if not is_log:
        return -value
    return 1 / value if value else float("inf")


@once
def comparisons_of(run: Run) -> Comparisons:
    """Compare all deployments of a model at each load, on the compared metrics and on DECIDED_BY.

    The comparisons of one metric at one load are a family: of all pairs, since the leader is chosen by the
    data; with compare.baseline of the pairs with it. The rows are those with the reference: the baseline that
    was asked for, else the leader of the metric.
    """
    compare, why, family = run.record.compare, why_none(run), 0
    rows, found = [], {}
    for groups in _cases(run):
        scenario, load = groups[0].scenario, groups[0].load
        labels = [group.deployment for group in groups]
        baseline = compare.baseline if compare.baseline in labels else None
        pairs = [
            Pair((a.deployment, b.deployment), (run, run), (a, b), why)
            for a, b in itertools.combinations(groups, 2)
            if baseline is None or baseline in (a.deployment, b.deployment)
        ]
        for metric in dict.fromkeys([*compare.metrics, *DECIDED_BY]):
            verdicts = decide([question_of(pair, metric, compare.margin_share) for pair in pairs])
            family = max(family, sum(verdict.kind != "none" for verdict in verdicts))
            for pair, verdict in zip(pairs, verdicts, strict=True):
                first, second = pair.names
                found[scenario, load, metric, second, first] = verdict
                found[scenario, load, metric, first, second] = mirrored(verdict)
            if metric in compare.metrics:
                reference = baseline or _leader(run, groups, metric)
                keys = [(scenario, load, metric, label, reference) for label in labels]
                rows += [Compared(*key, found[key]) for key in keys if key in found]
    return Comparisons(tuple(rows), _baselines(run), family, why, found)


def _cases(run: Run) -> Iterator[list[Group]]:
    """Yield the groups of each model, scenario and load that have one beside them."""
    by_case: dict[tuple[str, str, str], list[Group]] = {}
    for group in run.groups:
        by_case.setdefault((group.scenario, group.load, group.model), []).append(group)
    return (groups for groups in by_case.values() if len(groups) > 1)


def _leader(run: Run, groups: Sequence[Group], metric: str) -> str:
    """Return the label with the best mean; the first one where none has a value."""
    sign = 1 if metric_of(metric).better == "lower" else -1
    means = {group.deployment: aggregate(run, group, metric).mean for group in groups}
    known = {label: sign * mean for label, mean in means.items() if mean is not None}
    return min(known, key=lambda label: known[label]) if known else groups[0].deployment


def why_none(run: Run) -> str | None:
    """Return why no two deployments of a run get a verdict; None where they may."""
    if not all(map(run.is_restarted, run.deployments)):
        return "the server was running already and was not restarted between repeats"
    if run.record.search is not None:
        return "a search tries other loads on each start; its answers are compared"
    repeats = len({cell.planned.repeat for cell in run.planned_cells})
    if repeats < STARTS_NEEDED:
        return f"a verdict needs {STARTS_NEEDED} starts of each deployment or more, here {repeats}"
    return None


def remedy(run: Run) -> str:
    """Return what would give verdicts, as a sentence; empty where nothing would."""
    if not all(map(run.is_restarted, run.deployments)):
        return "Where bench can start the servers, leave out engine.base_url."
    if run.record.search is not None:
        return ""
    return "Give repeats=5: 3 are the fewest, and 5 can tell smaller differences."


def _baselines(run: Run) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, deployment in run.deployments.items():
        if label == run.record.compare.baseline:
            found[deployment.model] = label
        found.setdefault(deployment.model, label)
    return found
