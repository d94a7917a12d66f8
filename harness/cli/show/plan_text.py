"""A plan as a person reads it: rows of its cells, and what holds for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from engines import ENGINES
from harness.cli.show.tables import print_rows
from harness.contracts import Deployment, EngineTerms, Load, Plan, Skip, Until
from harness.plan.traffic import context_lines
from harness.settings.decoding import as_text
from harness.settings.units import counted, duration_text, grouped


@dataclass(frozen=True)
class Unmatched:
    """A common term that some servers cannot be told, and why."""

    term: str
    reason: str
    deployments: tuple[str, ...]


def print_plan(out: Console, plan: Plan, until: Until | None = None) -> None:
    """Print a plan: its cells, then what holds for all of it."""
    if rows := plan_rows(plan):
        print_rows(out, rows)
    for line in plan_lines(plan, until):
        out.print(escape(line))


def plan_rows(plan: Plan) -> list[dict[str, str]]:
    """Return a row for each cell; what its start is called stands at the start's first."""
    return [
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


def plan_lines(plan: Plan, until: Until | None = None) -> list[str]:
    """Say what is skipped and why, what servers are told and cannot be told, and how long it takes."""
    deployments = list(plan.deployments.values())
    return [
        *skip_lines(plan.skips),
        *_fairness(deployments),
        *(f"engine.{term}: {why}" for term, why in plan.filled.items()),
        *_tuned(deployments),
        *(
            f"not matched, {', '.join(each.deployments)}: {each.term}, {each.reason}"
            for each in unmatched(plan)
        ),
        *context_lines(plan.starts),
        *length_lines(plan, until),
    ]


def length_lines(plan: Plan, until: Until | None = None) -> list[str]:
    """Say how many starts and cells there are, what they are expected to take, and what may follow them."""
    cells = sum(len(start.cells) for start in plan.starts)
    if not cells:
        return []
    size = f"{counted(len(plan.starts), 'start')}, {counted(cells, 'cell')}"
    # A large engine takes a minute or more to start, which no constant could tell.
    is_ours = any(each.terms.base_url is None for each in plan.deployments.values())
    beside = ", and each engine's own start-up" if is_ours else ""
    lines = [f"{size}, about {duration_text(plan.estimate_s)}{beside}"]
    return [*_order_lines(plan), *lines, *(_until_lines(plan, until) if until else ())]


def _order_lines(plan: Plan) -> Iterable[str]:
    """Say what the order is; nothing where there is no choice."""
    if len(plan.deployments) > 1:
        yield "order: every repeat starts each deployment once, balanced over repeats and drawn from the seed"
    if any(len(start.cells) > 1 for start in plan.starts):
        yield "order: cells of a start at random, in each repeat anew and the same for all deployments"


def _until_lines(plan: Plan, until: Until) -> Iterable[str]:
    asked, budget = f"{100 * until.half_width_share:g} %", duration_text(until.budget_s)
    yield (
        f"until=ci:{100 * until.half_width_share:g}%: after {counted(plan.blocks, 'repeat')}, more, until no "
        f"95 % interval of {until.metric} reaches further than {asked} from its mean, or a further one would "
        f"not end within {budget}"
    )
    if plan.estimate_s > until.budget_s:
        yield (
            f"until.budget is {budget}, less than these {counted(plan.blocks, 'repeat')} are expected to "
            "take; they are measured all the same"
        )


def skip_lines(skips: Sequence[Skip]) -> list[str]:
    """Return what is left out, those of one reason in a line."""
    reasons = grouped((skip.reason, skip.what) for skip in skips)
    return [f"skipped {', '.join(what)}: {reason}" for reason, what in reasons.items()]


def _fairness(deployments: Sequence[Deployment]) -> list[str]:
    """Say what the servers that bench starts are told alike; options of their own may say otherwise."""
    terms = dict.fromkeys(each.terms for each in deployments if each.terms.base_url is None)
    said = dict.fromkeys((each.fairness, _told(each)) for each in terms)
    return [f"fairness={fairness}: {told}" for fairness, told in said]


_EQUAL_TERMS = ("context_length", "concurrent_sequences", "kv_cache_tokens", "prefix_cache")


def _told(terms: EngineTerms) -> str:
    asked = {name: value for name in _EQUAL_TERMS if (value := getattr(terms, name)) is not None}
    told = ", ".join(f"engine.{name}={as_text(value)}" for name, value in asked.items())
    return told or "each engine's own defaults"


def _tuned(deployments: Sequence[Deployment]) -> list[str]:
    """Say what each engine's tuned set adds, and who recommends it; a value that the user gave wins."""
    lines: dict[str, None] = {}
    for each in deployments:
        tuned = ENGINES[each.engine].tuned
        if tuned is None or each.terms.fairness != "tuned" or each.terms.base_url:
            continue
        values = {name: getattr(each.options, name) for name in tuned.options}
        words = [
            f"{each.engine}.{name}={as_text(value)}" + ("" if value == tuned.options[name] else " (given)")
            for name, value in values.items()
        ]
        told = ", ".join(words)
        lines[f'fairness=tuned adds to {each.engine} "{tuned.name}": {told}; source: {tuned.source}'] = None
    return list(lines)


def unmatched(plan: Plan) -> list[Unmatched]:
    """Return what cannot be told to a server, each once, so that a reader knows before the run."""
    found: dict[tuple[str, str], list[str]] = {}
    for deployment in plan.deployments.values():
        if deployment.terms.base_url is None:
            for term, why in ENGINES[deployment.engine].unmatched(deployment).items():
                found.setdefault((f"engine.{term}", why), []).append(deployment.label)
    return [Unmatched(term, why, tuple(labels)) for (term, why), labels in found.items()]


def _phases(load: Load) -> str:
    """Return each phase that there is, in order; the window with what bounds it."""
    bounds = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    if load.conversations is not None:
        bounds.append(f"{load.conversations} conversations")
    window = " or ".join(bounds) or "the whole trace"
    before = [load.ramp_up_s, load.warmup_s] if load.ramp_up_s else [load.warmup_s]
    after = [load.ramp_down_s] if load.ramp_down_s else []
    return " + ".join([*(f"{s:g} s" for s in before), window, *(f"{s:g} s" for s in after)])
