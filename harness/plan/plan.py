"""Turn settings into the ordered starts and cells of a run, and say what is left out and why. Pure."""

import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from serving_bench.engines import ENGINES, launch_of
from serving_bench.harness.contracts import (
    Deployment,
    Load,
    ModelFacts,
    Place,
    Plan,
    PlannedCell,
    PlannedStart,
    Race,
    Reason,
    ScenarioChoice,
    Skip,
    Weights,
    all_weights,
)
from serving_bench.harness.errors import UserError
from serving_bench.harness.plan.candidates import NO_QUANTIZATION, candidates, check_heeded
from serving_bench.harness.plan.context import check_context
from serving_bench.harness.plan.facts import UNKNOWN, Facts
from serving_bench.harness.plan.order import deployment_order, shuffled
from serving_bench.harness.plan.terms import able_to_call, at_once, bounded, draft_facts
from serving_bench.harness.settings.config import GRID_REPEATS, Settings, as_grid
from serving_bench.scenarios import forms_of, least_output_tokens

# Guesses, in seconds: a start without the engine's own start-up (1 s to minutes), attaching to a running
# server, and a cell without its load.
_START_S, _ATTACHED_S, _CELL_S = 4.0, 1.0, 2.0
# With `until`. Fewer repeats give no useful interval (see METHODOLOGY.md).
LEAST_BLOCKS = 3
# A guess, in seconds: a window that has neither a duration nor a known rate.
_WINDOW_S = 60.0


def possible(settings: Settings) -> dict[Deployment, Reason | None]:
    """Return every combination that was asked for, with the reason if it can exist on no machine.

    Raises UserError for options that none of the deployments could use, or that cannot work.
    """
    deployments = candidates(settings)
    check_heeded(settings, deployments)
    return {each: why_impossible(each) for each in deployments}


def make(settings: Settings, facts: Facts = UNKNOWN) -> Plan:
    """Return the plan: blocks that start every deployment once, in a balanced order drawn from the seed.

    Raises UserError as `possible` does, and for a context that holds no conversation or is longer than the
    model supports.
    """
    reasons = {
        each: reason or _why_not_here(each, facts) or why_not_held(each, settings.scenarios)
        for each, reason in possible(settings).items()
    }
    skips = tuple(Skip(each.label, reason) for each, reason in reasons.items() if reason)
    deployments = [each for each, reason in reasons.items() if reason is None]
    terms = [point.value for point in settings.terms if deployments]
    bound_terms = [each for each in terms if each.fairness != "stock" and not each.base_url]
    filled = {}  # why each term that nobody gave has its value
    if any(each.concurrent_sequences is None for each in bound_terms):
        filled["concurrent_sequences"] = at_once(settings.loads, settings.scenarios).why
    if any(each.kv_cache_tokens is None for each in bound_terms):
        deployments, why = bounded(deployments, facts)
        filled |= {"kv_cache_tokens": why} if why else {}
    deployments, why_template = able_to_call(deployments, settings.scenarios)
    filled |= {"chat_template": why_template} if why_template else {}
    if any(each.terms.speculative_tokens for each in deployments) and (
        "engine.speculative_tokens" not in settings.given
    ):
        filled["speculative_tokens"] = "llama.cpp's and SGLang's own number for a draft"
    ours = [each for each in deployments if each.terms.base_url is None and each.model != NO_QUANTIZATION]
    for model, length in dict.fromkeys((each.model, each.terms.context_length) for each in ours):
        check_most_context(settings, model, length, facts.contexts.get(model))
    race = race_of(settings, deployments)
    whole = Plan((), skips, 0.0, tuple(each.label for each in deployments), filled, race)
    for _ in range(blocks_asked(settings, race) if deployments else 0):
        whole = _grown(whole, settings, deployments, len(whole.starts) + 1)
    check_context(whole.starts, facts.contexts)
    return estimated(whole)


def race_of(settings: Settings, deployments: Collection[Deployment]) -> Race | None:
    """Return the race of these deployments; None if each is started equally often.

    Raises UserError if a race was asked for, and no two serve the same model.
    """
    repeats, labels = settings.repeats, [each.label for each in deployments]
    if not repeats.is_race:
        return None
    if len({each.model for each in deployments}) == len(labels):
        as_grid(settings, "no two deployments of this plan serve the same model, so none race")
        return None
    kept = dict.fromkeys(filter(None, (settings.race.keep, settings.compare.baseline)))
    return Race.of(repeats.least, repeats.most, labels, [*kept])


def blocks_asked(settings: Settings, race: Race | None) -> int:
    """Return how many repeats a plan has before its first start."""
    asked = settings.repeats.least if race or not settings.repeats.is_race else GRID_REPEATS
    return max(asked, LEAST_BLOCKS) if settings.until else asked


def only_here(whole: Plan, facts: Facts) -> Plan:
    """Return a plan without the starts that cannot be made here; their deployments are skipped."""
    reasons = {label: why for label, each in whole.deployments.items() if (why := _why_not_here(each, facts))}
    starts = tuple(start for start in whole.starts if start.deployment.label not in reasons)
    skips = (*whole.skips, *(Skip(label, why) for label, why in reasons.items()))
    return estimated(replace(whole, starts=starts, skips=skips))


def _why_not_here(deployment: Deployment, facts: Facts) -> Reason | None:
    return (
        why_not_had(deployment, facts)
        or why_not_drafted(deployment, facts.shapes)
        or why_not_adapted(deployment, facts)
    )


def grown(whole: Plan, settings: Settings, first_index: int) -> Plan:
    """Return a plan with one more block, whose starts are numbered from `first_index` on.

    In a race it has those that are still started. Their order is balanced over the blocks since one left.
    """
    every, race = whole.deployments, whole.race
    labels = [label for label in every if race is None or label in race.going]
    since = max((each.after for each in race.left if each.label not in labels), default=0) if race else 0
    return estimated(_grown(whole, settings, [every[label] for label in labels], first_index, since))


def _grown(
    whole: Plan, settings: Settings, deployments: Sequence[Deployment], first_index: int, since: int = 0
) -> Plan:
    repeat = whole.blocks
    numbers = itertools.count(max((c.number for start in whole.starts for c in start.cells), default=0) + 1)
    order = enumerate(deployment_order(settings.seed, len(deployments), repeat - since), first_index)
    block = (
        PlannedStart(index, deployments[place], repeat, tuple(_cells(settings, repeat, numbers)))
        for index, place in order
    )
    return replace(whole, starts=(*whole.starts, *block))


def check_most_context(
    settings: Settings, model: str, context_length: int | None, most_tokens: int | None
) -> None:
    """Raise UserError for a context that is longer than the model supports, if both are known."""
    if context_length is not None and most_tokens is not None and context_length > most_tokens:
        given = "" if "engine.context_length" in settings.given else ", the default,"
        raise UserError(
            f"engine.context_length={context_length}{given} is more than {model} supports: "
            f"give {most_tokens} or less"
        )


def estimated(whole: Plan) -> Plan:
    """Return the plan with its expected duration, without the start-up of the engines."""
    return replace(whole, estimate_s=estimated_s(whole.starts))


def estimated_s(starts: Sequence[PlannedStart]) -> float:
    cells = (cell for start in starts for cell in start.cells)
    return sum(start_s(start.deployment) for start in starts) + sum(map(cell_s, cells))


def start_s(deployment: Deployment) -> float:
    return _ATTACHED_S if deployment.terms.base_url else _START_S


def cell_s(cell: PlannedCell) -> float:
    return load_s(cell.load, cell.scenario) + _CELL_S


def load_s(load: Load, scenario: ScenarioChoice) -> float:
    """Return the expected seconds of a load's ramps, warm-up and window. The window's may be a guess."""
    bounds_s = [] if load.duration_s is None else [load.duration_s]
    if load.kind == "trace" and scenario.span_s is not None:
        bounds_s.append(max(0.0, scenario.span_s / load.speedup - load.warmup_s))
    if load.conversations is not None and load.rate_per_s is not None:
        bounds_s.append(load.conversations / load.rate_per_s)
    return load.ramp_up_s + load.warmup_s + load.ramp_down_s + min(bounds_s, default=_WINDOW_S)


def _cells(settings: Settings, repeat: int, numbers: Iterator[int]) -> list[PlannedCell]:
    # Every deployment of a block gets the same order, so that they are measured alike.
    rng = Random(f"{settings.seed}|cells|{repeat}")
    return [replace(cell, number=next(numbers)) for cell in shuffled(cells_asked(settings, repeat), rng)]


def cells_asked(settings: Settings, repeat: int) -> list[PlannedCell]:
    """Return the cells of each start of a repeat, in the order asked for, numbered from 1."""
    traffic = [_traffic(load) for load in settings.loads]
    pairs = itertools.product(settings.scenarios, enumerate(settings.loads))
    return [
        PlannedCell(
            number,
            scenario,
            load,
            repeat,
            cell_seed(settings.seed, scenario, load, repeat, traffic[:place].count(traffic[place])),
        )
        for number, (scenario, (place, load)) in enumerate(pairs, 1)
    ]


def cell_seed(run_seed: int, scenario: ScenarioChoice, load: Load, repeat: int, place: int = 0) -> int:
    """Return a cell's seed, which depends on neither the deployment nor the load's bounds and ramps.

    Loads of the same traffic differ in `place`, and so in their conversations: those of the cell before would
    be in the server's cache.
    """
    text = f"{run_seed}|{scenario.label}|{_traffic(load)}|{repeat}" + (f"|{place}" if place else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _traffic(load: Load) -> str:
    if load.kind == "trace":
        return "trace"
    if load.kind == "batch":
        return f"batch={load.conversations}"
    if load.kind == "open":
        shape = f" {load.burstiness}" if load.arrival == "gamma" else ""
        return f"rate={load.rate_per_s} {load.arrival}{shape}"
    return f"concurrency={load.concurrency}"


def why_impossible(deployment: Deployment) -> Reason | None:
    """Return why no machine has a deployment. Raises UserError if its options cannot work."""
    if deployment.terms.base_url:
        return None  # the server runs already; the user says what it serves
    engine, launcher = ENGINES[deployment.engine], deployment.terms.launcher
    if launcher is not None and engine.launchers and launcher not in engine.launchers:
        lack = {"native": "program that bench can start", "docker": "container image"}[launcher]
        return Reason(f"{engine.name} cannot be started with launcher={launcher}: it has no {lack}")
    if deployment.terms.fairness == "tuned" and engine.tuned is None:
        return Reason(f"{engine.name} has no tuned set of options")
    needed = all_weights(engine, deployment)
    if needed[0] is None:
        # Raises UserError if the options cannot work; better now than after other starts.
        launch_of(engine, deployment, Place(None, None, "127.0.0.1", 0, Path(), program=Path()))
    lacks = (_lack(deployment), *(each for each in needed if isinstance(each, Reason)))
    return next(filter(None, lacks), None)


def why_not_had(deployment: Deployment, facts: Facts) -> Reason | None:
    """Return why this machine cannot start a deployment, or why its weights cannot be had; else None."""
    if deployment.terms.base_url:
        return None
    needed = all_weights(ENGINES[deployment.engine], deployment)
    unprepared = (facts.unprepared.get(each) for each in needed if isinstance(each, Weights))
    return facts.not_here.get(deployment) or next(
        (_of_given(why, deployment) for why in unprepared if why), None
    )


def _of_given(why: Reason, deployment: Deployment) -> Reason:
    """Return why weights cannot be had. For those of a draft it names the key that the user gave."""
    is_of_draft = deployment.draft and why.setting == f"model={deployment.draft.model}"
    return why.of(setting=f"engine.speculation={deployment.terms.speculation}") if is_of_draft else why


def _lack(deployment: Deployment) -> Reason | None:
    """Return why an engine lacks the KV cache type or the way to speculate that was asked for; else None."""
    engine, terms = ENGINES[deployment.engine], deployment.terms
    kind = (terms.speculation or "off").partition(":")[0].replace("off", "")
    limits = (
        ("kv_cache_type", terms.kv_cache_type, engine.kv_cache_types),
        ("speculation", kind, engine.speculations),
    )
    for term, value, choices in limits:
        can = choices(deployment) if choices else None
        if value and can is not None and value not in can:
            others = f"; it supports {', '.join(can)}" if can else ""
            why = f"{{setting}}: {engine.name} does not support it here{others}"
            return Reason(why, setting=f"engine.{term}={value}")
    return None


# Models of one family may pad the same vocabulary to different sizes. llama.cpp accepts this difference.
_PADDING = 128


def why_not_drafted(deployment: Deployment, shapes: Mapping[str, ModelFacts]) -> Reason | None:
    """Return why the draft's vocabulary is not the deployment's; None if it is, or if that is not known."""
    target, draft = shapes.get(deployment.model), draft_facts(deployment, shapes)
    if target is None or draft is None or target.vocabulary is None or draft.vocabulary is None:
        return None
    if abs(target.vocabulary - draft.vocabulary) <= _PADDING:
        return None
    return Reason(
        "{setting}: the draft has a vocabulary of {draft} tokens and {model} one of {target}; they must be "
        "the same",
        setting=f"engine.speculation={deployment.terms.speculation}",
        draft=draft.vocabulary,
        model=deployment.model,
        target=target.vocabulary,
    )


def why_not_adapted(deployment: Deployment, facts: Facts) -> Reason | None:
    """Return why a deployment cannot serve the adapters that its scenarios name; None if it can."""
    engine, adapters = ENGINES[deployment.engine], deployment.adapters
    if not adapters:
        return None
    if deployment.terms.base_url:
        is_random = any(each.source is None for each in adapters)
        lack = "{setting}: a running server has adapters of its own: scenario.adapters=NAME:NAME names them"
        return Reason(lack, setting=f"scenario.adapters={len(adapters)}") if is_random else None
    if lacks := engine.why_no_adapters(deployment):
        return Reason("it serves no LoRA adapters: {why}", why=lacks)
    needed = engine.weights(deployment)
    if not isinstance(needed, Weights):
        return None
    return next((facts.misfits[each, needed] for each in adapters if (each, needed) in facts.misfits), None)


def why_not_held(deployment: Deployment, scenarios: Sequence[ScenarioChoice]) -> Reason | None:
    """Return why an engine cannot give answers of a scenario's forms and lengths; None if it can."""
    for each in scenarios:
        forced = [form for form in forms_of(each) if form.is_forced]
        why = ENGINES[deployment.engine].why_not_answered(
            deployment.options, forced, least_output_tokens(each)
        )
        if why:
            return Reason("{setting}: {why}", setting=f"scenario={each.name}", why=why)
    return None
