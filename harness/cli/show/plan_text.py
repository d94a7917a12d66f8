"""A plan as a person reads it: rows of its cells, and what holds for all of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from engines import ENGINES
from harness.cli.show.tables import print_rows
from harness.contracts import Deployment, Load, Plan, Skip, Until
from harness.plan.terms import context_lines
from harness.settings.decoding import as_text
from harness.settings.units import counted, duration_text, grouped


def print_plan(out: Console, plan: Plan, until: Until | None = None) -> None:
    """Print a row for each cell, with its start's name in the first; then what holds for the whole plan."""
    rows = [
        {
            "start": start.name if position == 0 else "",
            "repeat": str(cell.repeat + 1),
            "cell": f"{cell.number:03d}",
            "scenario": cell.scenario.label,
            "load": cell.load.label,
            "ramp-up + warm-up + window + ramp-down": _phases(cell.load),
        }
        for start in plan.starts
        for position, cell in enumerate(start.cells)
    ]
    if rows:
        print_rows(out, rows)
    for line in _plan_lines(plan, until):
        out.print(escape(line))


def _plan_lines(plan: Plan, until: Until | None) -> Iterator[str]:
    """Say what is skipped and why, what servers are told and cannot be told, and how long it takes."""
    ours = [each for each in plan.deployments.values() if each.terms.base_url is None]
    yield from skip_lines(plan.skips)
    yield from dict.fromkeys(f"fairness={each.terms.fairness}: {_told(each)}" for each in ours)
    yield from (f"engine.{term}: {why}" for term, why in plan.filled.items())
    yield from dict.fromkeys(line for each in ours for line in _tuned_lines(each))
    for each in unmatched(plan):
        yield f"not matched, {', '.join(each['deployments'])}: {each['term']}, {each['reason']}"
    yield from context_lines(plan.starts)
    yield from length_lines(plan, until)


def skip_lines(skips: Sequence[Skip]) -> list[str]:
    """Return a line for each reason, with all that is left out for it."""
    reasons = grouped((skip.reason, skip.what) for skip in skips)
    return [f"skipped {', '.join(what)}: {reason}" for reason, what in reasons.items()]


def _told(deployment: Deployment) -> str:
    """Return what a server is told as all others are; an option of its own may say otherwise."""
    names = ("context_length", "concurrent_sequences", "kv_cache_tokens", "prefix_cache")
    asked = {name: getattr(deployment.terms, name) for name in names}
    told = [f"engine.{name}={as_text(value)}" for name, value in asked.items() if value is not None]
    return ", ".join(told) or "each engine's own defaults"


def _tuned_lines(deployment: Deployment) -> Iterator[str]:
    """Say what an engine's tuned set adds, and who recommends it; a value that the user gave wins."""
    engine, tuned = deployment.engine, ENGINES[deployment.engine].tuned
    if tuned and deployment.terms.fairness == "tuned":
        values = {name: getattr(deployment.options, name) for name in tuned.options}
        told = ", ".join(
            f"{engine}.{name}={as_text(value)}" + ("" if value == tuned.options[name] else " (given)")
            for name, value in values.items()
        )
        yield f'fairness=tuned adds to {engine} "{tuned.name}": {told}; source: {tuned.source}'


def unmatched(plan: Plan) -> list[dict[str, Any]]:
    """Return each common term that servers cannot be told, with the reason and these deployments' labels."""
    found: dict[tuple[str, str], list[str]] = {}
    for deployment in plan.deployments.values():
        if deployment.terms.base_url is None:
            for term, why in ENGINES[deployment.engine].unmatched(deployment).items():
                found.setdefault((f"engine.{term}", why), []).append(deployment.label)
    return [{"term": term, "reason": why, "deployments": labels} for (term, why), labels in found.items()]


def length_lines(plan: Plan, until: Until | None) -> list[str]:
    """Say how many starts and cells there are, what they are expected to take, and what may follow them."""
    cells = sum(len(start.cells) for start in plan.starts)
    if not cells:
        return []
    lines = []
    if len(plan.deployments) > 1:
        lines.append(
            "order: every repeat starts each deployment once, balanced over repeats and drawn from the seed"
        )
    if any(len(start.cells) > 1 for start in plan.starts):
        lines.append(
            "order: cells of a start at random, drawn for each repeat and the same for all deployments"
        )
    # A large engine takes a minute or more to start, which no constant could tell.
    is_ours = any(each.terms.base_url is None for each in plan.deployments.values())
    beside = ", and each engine's own start-up" if is_ours else ""
    size = f"{counted(len(plan.starts), 'start')}, {counted(cells, 'cell')}"
    lines.append(f"{size}, about {duration_text(plan.estimate_s)}{beside}")
    if until:
        lines += _until_lines(plan, until)
    return lines


def _until_lines(plan: Plan, until: Until) -> Iterator[str]:
    share, budget = f"{100 * until.half_width_share:g}", duration_text(until.budget_s)
    repeats = counted(plan.blocks, "repeat")
    yield (
        f"until=ci:{share}%: after {repeats}, more, until no 95 % interval of {until.metric} reaches further "
        f"than {share} % from its mean, or a further one would not end within {budget}"
    )
    if plan.estimate_s > until.budget_s:
        yield (
            f"until.budget is {budget}, less than these {repeats} are expected to take; they are measured "
            "all the same"
        )


def _phases(load: Load) -> str:
    """Return each phase that there is, in order; the window with what bounds it."""
    bounds = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    if load.conversations is not None:
        bounds.append(f"{load.conversations} conversations")
    window = " or ".join(bounds) or "the whole trace"
    ramp_up = f"{load.ramp_up_s:g} s + " if load.ramp_up_s else ""
    ramp_down = f" + {load.ramp_down_s:g} s" if load.ramp_down_s else ""
    return f"{ramp_up}{load.warmup_s:g} s + {window}{ramp_down}"
