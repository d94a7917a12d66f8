"""The run's answer in a sentence or two: what is proven, with its interval and load, or why nothing is.

Names nothing as ahead without a verdict. Knows no chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.cells import Group
from reports.comparisons import remedy
from reports.frames import Run
from reports.load_cases import LoadCase, load_cases_of, title_of_case, verdict_of
from reports.metrics import metric_of
from reports.page.markup import several
from reports.verdict_words import family_text, margin_text, ratio_text, title_of, word_of
from reports.verdicts import Verdict

_MEMORY = "memory_peak_bytes"


@dataclass(frozen=True)
class Against:
    """A deployment with its verdict against the baseline."""

    group: Group
    verdict: Verdict

    @property
    def label(self) -> str:
        return self.group.deployment


@dataclass(frozen=True)
class Answer:
    """`sentences` are the answer; `basis` says by which rule, empty where there is no verdict. `numbers`:
    what they compare, as two groups and a metric, for the marks that these bear."""

    sentences: tuple[str, ...]
    basis: str = ""
    numbers: tuple[tuple[Group, Group, str], ...] = ()


def answer_of(run: Run) -> Answer:
    """From the verdicts on the first compared metric, at each scenario's and model's highest load."""
    found = run.comparisons
    if not found.rows:
        return Answer((_nothing_compared(run),))
    if found.why_none:
        said = f"No winner is named: {found.why_none}. The values stand side by side. {remedy(run)}"
        return Answer((said.rstrip(),))
    metric = run.record.compare.metrics[0]
    sentences: list[str] = []
    numbers: list[tuple[Group, Group, str]] = []
    for case in _highest(run):
        assert case.baseline is not None
        others = [Against(g, v) for g in case.groups if (v := verdict_of(run, case, g, metric))]
        said, named = _sentence(run, metric, case.baseline, others)
        title = title_of_case(run, case)
        sentences.append(f"{title}{':' if ',' in title else ''} {said}")
        numbers += [(group, case.baseline, metric) for group in named]
    if not found.family:
        return Answer(tuple(sentences))
    basis = f"{family_text(found.family)}; other loads and metrics are in Verdicts."
    return Answer(tuple(sentences), basis, tuple(numbers))


def _nothing_compared(run: Run) -> str:
    if len(run.deployments) < 2:
        return "One deployment: nothing is compared."
    return "No winner is named: deployments of different models are not compared."


def _highest(run: Run) -> list[LoadCase]:
    """Of each scenario and model the highest load of its first family that has the baseline."""
    found: dict[tuple[str, str], LoadCase] = {}
    for case in load_cases_of(run):
        if case.baseline is not None:
            found.setdefault((case.scenario, case.model), case)
    return list(found.values())


def _sentence(run: Run, metric: str, baseline: Group, others: Sequence[Against]) -> tuple[str, list[Group]]:
    """What is proven of the others against the baseline, and which groups it names."""
    better = sorted(
        (each for each in others if each.verdict.kind == "better"),
        key=lambda each: each.verdict.ratio or 0.0,
        reverse=metric_of(metric).better != "lower",
    )
    if better:
        return _ahead(run, metric, baseline, better), [each.group for each in better]
    title, kinds = title_of(metric), {each.verdict.kind for each in others}
    if kinds == {"none"}:
        whys = several([each.verdict.why or "no value" for each in others], "; ")
        return f"no verdict is given on {title}: {whys}.", []
    if kinds == {"same"}:
        margin = margin_text(run.record.compare.margin_share)
        return (
            f"the same {title} as {baseline.deployment} within {margin}: {_each(metric, others)}.",
            [each.group for each in others],
        )
    word = metric_of(metric).words[0]
    said = [f"nothing is proven {word} than {baseline.deployment} in {title}"]
    for kind in ("same", "worse", "unknown"):
        some = [each for each in others if each.verdict.kind == kind]
        if some:
            named = word_of(metric, some[0].verdict, run.record.compare.margin_share)
            said.append(f"{named}: {_each(metric, some)}")
    none = [each.label for each in others if each.verdict.kind == "none"]
    said += [f"no verdict: {several(none)}"] if none else []
    return "; ".join(said) + ".", [each.group for each in others if each.verdict.kind != "none"]


def _ahead(run: Run, metric: str, baseline: Group, better: Sequence[Against]) -> str:
    """The one that is ahead by most, and who else is ahead of the baseline."""
    first, rest = better[0], better[1:]
    verb = "gives" if metric_of(metric).better == "higher" else "has"
    found = ratio_text(metric, first.verdict)
    if first.verdict.is_log:
        said = f"{first.label} {verb} {found} the {title_of(metric)} of {baseline.deployment}"
    else:
        said = f"{first.label} {verb} {found} {title_of(metric)} against {baseline.deployment}"
    said += _memory(run, baseline, first.group) + "."
    if not rest:
        return said
    also = f" Also {metric_of(metric).words[0]} than {baseline.deployment}"
    for is_told, ending in (
        (True, f", and behind {first.label}"),
        (False, f"; no order between {first.label} and these is proven"),
        (None, f"; their order with {first.label} was not asked"),
    ):
        some = [each for each in rest if _is_behind(run, metric, first.group, each.group) is is_told]
        if some and is_told:
            said += f"{also}{ending}: {_each(metric, some)}."
        elif some:
            said += f"{also}: {_each(metric, some)}{ending}."
    return said


def _is_behind(run: Run, metric: str, first: Group, other: Group) -> bool | None:
    """Whether the first is proven better than the other; None where it was not asked, as of pairs without the
    baseline where there is no SLO."""
    verdict = run.comparisons.of(first.scenario, first.load, metric, first.deployment, other.deployment)
    return None if verdict is None else verdict.kind == "better"


def _memory(run: Run, baseline: Group, group: Group) -> str:
    """`, in 0.52x [0.51, 0.53] of its memory`, where that is told."""
    verdict = run.comparisons.of(group.scenario, group.load, _MEMORY, group.deployment, baseline.deployment)
    if verdict is None or verdict.kind in ("none", "unknown"):
        return ""
    if verdict.kind == "same":
        return f", in the same memory within {margin_text(run.record.compare.margin_share)}"
    return f", in {ratio_text(_MEMORY, verdict)} of its memory"


def _each(metric: str, some: Sequence[Against]) -> str:
    """`a 1.12x [1.08, 1.17], b 1.02x [0.99, 1.05] and 2 more`."""
    return several([f"{each.label} {ratio_text(metric, each.verdict)}" for each in some])
