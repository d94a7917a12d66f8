"""How many drafted tokens were accepted, and how near the answers are to those without speculation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving_bench.reports.data import Group, Run, growth, heard_of, once, pooled
from serving_bench.reports.measures.fidelity import Outcome, outcomes
from serving_bench.reports.measures.quality import Quality, nearness


@dataclass(frozen=True)
class Speculated:
    """A deployment that speculates, at one load, by its server's counters in the windows. None is not known.

    `accepted_share`: of `drafted_tokens`. `accepted_per_step`: accepted tokens per check of a draft, which
    yields one token anyway; if they are not counted, generated tokens per check less 1. `off`: the label of
    the same deployment without speculation.
    """

    group: Group
    drafted_tokens: float | None
    accepted_share: float | None
    accepted_per_step: float | None
    off: str | None
    quality: Quality | None
    became: Mapping[Outcome, int]


@once
def unspeculated_of(run: Run) -> dict[str, str | None]:
    """Return the labels of the deployments that speculate, each with the label of the same one that does
    not."""
    plain = {label: replace(each.unspeculated, label="") for label, each in run.deployments.items()}
    is_on = {label: bool(each.terms.speculative_tokens) for label, each in run.deployments.items()}
    return {
        label: next((other for other in plain if not is_on[other] and plain[other] == plain[label]), None)
        for label in plain
        if is_on[label]
    }


def became_of(run: Run, label: str) -> dict[Outcome, int]:
    """Return how the answers of a deployment that speculates compare with those of the same one that does
    not."""
    heard, off = heard_of(run), unspeculated_of(run)[label]
    if label not in heard or off not in heard:
        return {}
    return outcomes(heard[off].answered("chat"), heard[label].rows.get("chat", ()))


def speculated_of(run: Run) -> list[Speculated]:
    """Return each deployment that speculates, at each load where it was measured."""
    return [
        _speculated(run, group, unspeculated_of(run)[group.deployment])
        for group in run.groups
        if group.counted and group.deployment in unspeculated_of(run)
    ]


def _speculated(run: Run, group: Group, off: str | None) -> Speculated:
    heard, base = (heard_of(run).get(label or "") for label in (group.deployment, off))
    drafted = [growth(run, cell, "drafted_tokens") for cell in group.counted]
    counts = [tokens for tokens in drafted if tokens is not None]
    per_step = pooled(run, group, "accepted_tokens", "draft_steps")
    if per_step is None and (pooled_tokens := pooled(run, group, "generated_tokens", "draft_steps")):
        per_step = pooled_tokens - 1
    return Speculated(
        group,
        drafted_tokens=sum(counts) if counts else None,
        accepted_share=pooled(run, group, "accepted_tokens", "drafted_tokens"),
        accepted_per_step=per_step,
        off=off,
        quality=nearness(heard, base) if heard and base else None,
        became=became_of(run, group.deployment),
    )
