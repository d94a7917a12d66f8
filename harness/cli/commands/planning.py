"""`bench plan`: show what a run would do. Also makes the plan of the commands that measure."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any

import msgspec

from serving_bench.engines import ENGINES
from serving_bench.engines.model import weights
from serving_bench.engines.model.facts import known_facts, most_context
from serving_bench.harness.cli.terminal import Json, Overrides, Study, print_json, print_lines, print_rows
from serving_bench.harness.contracts import (
    STARTS_NEEDED,
    Adapter,
    Deployment,
    Fact,
    Load,
    ModelFacts,
    Plan,
    Race,
    Reason,
    SearchTerms,
    Skip,
    Until,
    Weights,
    Workshop,
    all_weights,
    plural,
    sentence,
)
from serving_bench.harness.errors import BenchError, UserError, choose_from
from serving_bench.harness.install import install
from serving_bench.harness.install.builds import check_builds, select_devices, uses_devices, why_not_on
from serving_bench.harness.install.provision import device_of, lacking
from serving_bench.harness.install.tokenizer import resolved
from serving_bench.harness.load import limits
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.context import context_lines
from serving_bench.harness.plan.facts import Facts
from serving_bench.harness.quality.planned import Asking, Due, asking, due, task_names
from serving_bench.harness.quality.tasks import provide_tasks
from serving_bench.harness.sampling import gpu
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.decoding import as_text
from serving_bench.harness.settings.units import duration_text, grouped
from serving_bench.scenarios import SCENARIOS

_ROWS_AT_MOST = 24


def plan_command(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    settings, whole, lines_of_texts = plan_here(config.settings(overrides.parse(changes or [], study)))
    quality = due(settings.quality, whole.deployments.values())
    has_device = bool(select_devices(device_of(settings)))
    lacks = grouped(lacking(whole.deployments.values(), weights, install.cache_dir(), has_device=has_device))
    questions = asking(quality, whole.starts)
    if as_json:
        more = {"unmatched": _unmatched(whole), "lacking": lacks, "quality": questions}
        print_json(
            {**msgspec.to_builtins(whole, enc_hook=sentence), "estimate_s": total_s(whole, questions), **more}
        )
    check_any(whole, "run")
    if not as_json:
        print_plan(whole, settings.until, questions, settings.budget_s)
        print_lines(lines_of_texts)
        print_lines(f"{', '.join(labels)}: {what}" for what, labels in lacks.items())


def plan_here(settings: config.Settings) -> tuple[config.Settings, Plan, Sequence[str]]:
    """Return the settings with what this machine adds, the plan of them, and lines about scenarios' texts.

    Raises UserError also for what could be planned and not started.
    """
    settings, lines_of_texts = resolved(settings, weights, install.cache_dir())
    whole = planned(settings)
    check_builds(device_of(settings), [start.deployment for start in whole.starts])
    limits.check_files(whole.starts)
    return settings, whole, lines_of_texts


def check_any(whole: Plan, verb: str) -> None:
    """Raise UserError with the reasons if every combination of a plan is skipped."""
    if not whole.starts:
        reasons = [skip.reason for skip in whole.skips]
        # A reason that names a setting already says what to give.
        is_of_setting = len({*reasons}) == 1 and isinstance(reasons[0], Reason) and reasons[0].setting
        raise UserError(reasons[0] if is_of_setting else f"nothing to {verb}: {why_none(whole.skips)}")


def planned(settings: config.Settings) -> Plan:
    """Return the plan of these settings on this machine, with its metrics and baseline checked."""
    requested = [each for each, why in plan.possible(settings).items() if why is None]
    whole = plan.make(settings, facts_here(settings, requested))
    check_goals(settings, whole)
    return whole


def facts_here(settings: config.Settings, requested: Collection[Deployment]) -> Facts:
    """Gather what a plan must know of deployments on this machine. Starts nothing, and asks no hub."""
    cache, devices = install.cache_dir(), select_devices(device_of(settings))
    device_bytes = gpu.smallest_bytes(devices)
    not_here = {each: why for each in requested if (why := why_not_on(devices, each))}
    drafts = [each.draft.model for each in requested if each.draft]
    models = dict.fromkeys([*(each.model for each in requested), *drafts])
    shapes = {model: facts for model in models if (facts := _shape(model))}
    unprepared, misfits = dict[Weights, Reason | None](), dict[tuple[Adapter, Weights], Reason | None]()
    for each in requested:
        if each.terms.base_url or each in not_here:
            continue
        for needed in all_weights(ENGINES[each.engine], each):
            if isinstance(needed, Weights) and needed not in unprepared:
                unprepared[needed] = weights.can_prepare(needed, cache)
        for adapter in each.adapters:
            needed = ENGINES[each.engine].weights(each)
            if isinstance(needed, Weights):
                misfits[adapter, needed] = weights.misfit(adapter, needed, shapes.get(each.model))
    return Facts(
        not_here,
        {needed: why for needed, why in unprepared.items() if why},
        {pair: why for pair, why in misfits.items() if why},
        shapes,
        {model: tokens for model in models if (tokens := most_context(model))},
        {each: device_bytes for each in requested if device_bytes and uses_devices(each)},
    )


def _shape(model: str) -> ModelFacts | None:
    try:
        return None if model.startswith("hf:") else known_facts(model).facts
    except BenchError:
        return None


def check_goals(settings: config.Settings, whole: Plan) -> None:
    """Raise UserError for metrics that do not exist, and for a baseline that is not in the plan."""
    named_metrics = [("compare.metric", name) for name in settings.compare.metrics]
    if settings.until:
        named_metrics.append(("until.metric", settings.until.metric))
    for key, name in named_metrics:
        if key in settings.given:
            from serving_bench.reports.measures.metrics import check_metric_name, metric_of

            check_metric_name(name, key)
            if key == "compare.metric" and metric_of(name).better == "-":
                raise UserError(
                    f"{key}={name}: neither more nor less of it is better; see `bench list metrics`"
                )
    for key, label in (("compare.baseline", settings.compare.baseline), ("race.keep", settings.race.keep)):
        if label is not None and whole.starts and label not in whole.deployments:
            skipped = {skip.what: f"is skipped, {skip.reason}" for skip in whole.skips}
            why = skipped.get(label, "is no deployment of this plan")
            raise UserError(f"{key}={label}: {why}; {choose_from(label, whole.deployments)}")


def print_plan(
    whole: Plan, until: Until | None = None, questions: Asking | None = None, budget_s: float | None = None
) -> None:
    """Print a row for each cell, with the start's name on its first; then what holds for the whole plan.

    If there are many cells, only those of the first repeat are printed.
    """
    more = whole.blocks - 1 if sum(len(start.cells) for start in whole.starts) > _ROWS_AT_MOST else 0
    rows = [
        {
            "start": start.name if position == 0 else "",
            "repeat": str(cell.repeat + 1),
            "cell": f"{cell.number:03d}",
            "scenario": cell.scenario.label,
            "load": cell.load.label,
            "ramp-up + warm-up + window + ramp-down": _phases(cell.load),
        }
        for start in whole.starts
        for position, cell in enumerate(start.cells)
        if not more or start.repeat == 0
    ]
    if rows:
        print_rows(rows)
    if more:
        repeats = plural(more, "more repeat")
        print_lines([f"... and the same for {repeats}, each in its own order (--json has all)"])
    print_lines([*_plan_lines(whole, until, questions), *budget_lines(whole, budget_s)])


def _phases(load: Load) -> str:
    bounds = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    if load.conversations is not None:
        bounds.append(f"{load.conversations} conversations")
    ramp_up = f"{load.ramp_up_s:g} s + " if load.ramp_up_s else ""
    ramp_down = f" + {load.ramp_down_s:g} s" if load.ramp_down_s else ""
    return f"{ramp_up}{load.warmup_s:g} s + {' or '.join(bounds) or 'the whole trace'}{ramp_down}"


def _plan_lines(whole: Plan, until: Until | None, questions: Asking | None) -> Iterator[str]:
    ours = [each for each in whole.deployments.values() if each.terms.base_url is None]
    yield from skip_lines(whole.skips)
    yield from dict.fromkeys(f"fairness={each.terms.fairness}: {_told(each)}" for each in ours)
    yield from (f"engine.{term}: {why}" for term, why in whole.filled.items())
    yield from dict.fromkeys(line for each in ours for line in _tuned_lines(each))
    for each in _unmatched(whole):
        yield f"not matched, {', '.join(each['deployments'])}: {each['term']}, {each['reason']}"
    yield from context_lines(whole.starts)
    yield from dict.fromkeys(_source_lines(whole))
    named = dict.fromkeys(each for start in whole.starts for each in start.deployment.adapters)
    if any(each.source is None for each in named):
        yield f"scenario.adapters={len(named)}: {weights.RANDOM}"
    yield from length_lines(whole, until, questions)
    if whole.blocks and len(whole.deployments) > max(len(ours), 1):
        yield "engine.base_url: no verdict however many repeats, since the server is not restarted"
    elif until is None and len(ours) > 1 and 0 < whole.blocks < STARTS_NEEDED:
        yield f"repeats={whole.blocks}: no verdict, which needs repeats={STARTS_NEEDED} or more"


def _source_lines(whole: Plan) -> Iterator[str]:
    """Say which scenarios have fewer conversations than a load asks for, where that is known."""
    for cell in (cell for start in whole.starts[:1] for cell in start.cells if cell.load.conversations):
        arrivals = SCENARIOS[cell.scenario.name].arrivals(cell.scenario.options)
        count = None if arrivals is None else sum(1 for _ in arrivals)
        if count is not None and count < (cell.load.conversations or 0):
            conversations = f"load.conversations={cell.load.conversations}"
            yield f"{conversations}: {cell.scenario.label} has {count}, and no more are played"


def why_none(skips: Sequence[Skip]) -> str:
    """Return why all of these are skipped. A reason that all share comes without their names."""
    shared = {skip.reason for skip in skips}
    return str(shared.pop()) if len(shared) == 1 else "; ".join(skip_lines(skips))


def skip_lines(skips: Sequence[Skip]) -> list[str]:
    reasons = grouped((str(skip.reason), skip.what) for skip in skips)
    return [f"skipped {', '.join(what)}: {reason}" for reason, what in reasons.items()]


def _told(deployment: Deployment) -> str:
    names = (
        "context_length", "concurrent_sequences", "kv_cache_tokens", "kv_cache_type", "prefix_cache",
        "speculation", "speculative_tokens",
    )  # fmt: skip
    terms = {name: getattr(deployment.terms, name) for name in names}
    words = [f"engine.{name}={as_text(value)}" for name, value in terms.items() if value is not None]
    return ", ".join(words) or "each engine's own defaults"


def _tuned_lines(deployment: Deployment) -> Iterator[str]:
    engine, tuned = deployment.engine, ENGINES[deployment.engine].tuned
    if tuned and deployment.terms.fairness == "tuned":
        values = {name: getattr(deployment.options, name) for name in tuned.options}
        lines = (
            f"{engine}.{name}={as_text(value)}{'' if value == tuned.options[name] else ' (given)'}"
            for name, value in values.items()
        )
        yield f'fairness=tuned adds to {engine} "{tuned.name}": {", ".join(lines)}; source: {tuned.source}'


def _unmatched(whole: Plan) -> list[dict[str, Any]]:
    terms_by_clause: dict[tuple[str, Fact], list[str]] = {}
    for deployment in whole.deployments.values():
        if deployment.terms.base_url is None:
            for term, why in ENGINES[deployment.engine].unmatched(deployment).items():
                terms_by_clause.setdefault((f"engine.{term}", why), []).append(deployment.label)
            if getattr(deployment.options, "args", None):
                clause = Reason("bench does not know what they change")
                terms_by_clause.setdefault((f"{deployment.engine}.args", clause), []).append(deployment.label)
    return [
        {"term": term, "reason": why, "deployments": labels}
        for (term, why), labels in terms_by_clause.items()
    ]


def total_s(whole: Plan, questions: Asking | None) -> float:
    """Return the seconds that a plan is expected to take, quality included."""
    return whole.estimate_s + (questions.planned_s if questions else 0.0)


def length_lines(whole: Plan, until: Until | None, questions: Asking | None = None) -> Iterator[str]:
    """Say how many starts and cells there are, how long they take with quality, and what may follow."""
    cells = sum(len(start.cells) for start in whole.starts)
    if not whole.starts:
        return
    # The start-up of a large engine takes a minute or more and is not part of the estimate.
    is_ours = any(each.terms.base_url is None for each in whole.deployments.values())
    if len(whole.deployments) > 1:
        begins = f"every repeat {'starts' if is_ours else 'loads'} each deployment once"
        yield f"order: {begins}, balanced over repeats and drawn from the seed"
    if any(len(start.cells) > 1 for start in whole.starts):
        yield "order: the cells of a start are shuffled in each repeat, alike for all deployments"
    beside = ", plus each engine's own start-up" if is_ours else ""
    size, length_s = (
        f"{plural(len(whole.starts), 'start')}, {plural(cells, 'cell')}",
        total_s(whole, questions),
    )
    quality = ""
    if questions:
        most = duration_text(questions.most_s)
        quality = f", {duration_text(questions.planned_s)} of it for quality (at most {most})"
    about = "at least" if until or whole.race else "about"
    yield f"{size}, {about} {duration_text(length_s)}{quality}{beside}"
    if whole.race:
        yield from _race_lines(whole, whole.race, length_s)
    yield from quality_lines(questions)
    if until is None:
        return
    share, budget = f"{100 * until.half_width_share:g}", duration_text(until.budget_s)
    repeats = plural(whole.blocks, "repeat")
    yield (
        f"until=ci:{share}%: after {repeats}, more follow until every 95 % interval of {until.metric} is "
        f"within {share} % of its mean, or a further one would not end within {budget}"
    )
    if length_s > until.budget_s:
        yield (
            f"until.budget is {budget}, less than these {repeats} are expected to take; they are measured "
            "all the same"
        )


def _race_lines(whole: Plan, race: Race, length_s: float) -> Iterator[str]:
    """Say how a race goes on after the repeats of a plan, and how long that takes."""
    more = max(0, race.most - max(whole.blocks, race.looked))
    # A run that goes on may lack the starts of some.
    took_s = {start.deployment.label: plan.estimated_s([start]) for start in whole.starts}
    each_s = sum(took_s.get(label, max(took_s.values())) for label in race.going)
    # Simulated with 4 % of noise, 29 to 54 % of the starts that may follow do (test_race_simulated.py).
    least, likely, most = (duration_text(length_s + part * more * each_s) for part in (0.0, 0.4, 1.0))
    yield (
        f"repeats={race.least}..{race.most}: a deployment that can be in no answer any more is started no "
        f"more; {least} if these decide, about {likely} if noise is 4 %, {most} at most"
    )


def budget_lines(left: Plan, budget_s: float | None) -> Iterator[str]:
    """Say which repeats of a plan run.budget is not expected to hold, where it was given."""
    starts = [start for start in left.starts if start.cells]
    by_repeat = groupby(starts, attrgetter("repeat"))
    ends_s = list(accumulate(plan.estimated_s(list(of_repeat)) for _, of_repeat in by_repeat))
    if budget_s is None or not ends_s or ends_s[-1] <= budget_s:
        return
    fitting = sum(end_s <= budget_s for end_s in ends_s)
    clause = f"the first repeat takes about {duration_text(ends_s[0])} and is measured all the same; " * (
        not fitting
    )
    if lost := len(ends_s) - max(fitting, 1):
        clause += f"the last {plural(lost, 'repeat')} of {len(ends_s)} will probably not be measured; "
    yield f"run.budget={duration_text(budget_s)}: {clause}run.budget={math.ceil(ends_s[-1])}s holds all"


def search_lines(terms: SearchTerms, whole: Plan, questions: Asking | None = None) -> Iterator[str]:
    """Say what is searched, how long it takes at least, and what is asked beside it."""
    unit = "users" if terms.over == "concurrency" else "conversations per second"
    yield (
        f"searching from {terms.lowest:g} to {terms.highest:g} {unit} on each of "
        f"{plural(len(whole.starts), 'start')}; with one trial on each about "
        f"{duration_text(total_s(whole, questions))}, but the number of trials depends on what is found"
    )
    yield from quality_lines(questions)


def with_tasks(quality: Due, workshop: Workshop) -> Due:
    """Return what is due with its tasks, which are found or installed first. Blocks. Raises UserError."""
    if "tasks" not in quality.terms.asked:
        return quality
    return replace(quality, tasks=provide_tasks(task_names(quality.terms), workshop))


def quality_lines(questions: Asking | None) -> Iterator[str]:
    """Say what is asked beside the load, of how many deployments, for how long each, and against which."""
    if questions is None:
        return
    tasks = f": {', '.join(questions.tasks)}"
    kinds = [
        f"{kind} ({duration_text(seconds)}, at most {duration_text(questions.bounds_s[kind])}"
        f"{tasks if kind == 'tasks' else ''})"
        for kind, seconds in questions.budgets_s.items()
    ]
    # A single deployment is its own reference: its answers are kept for later runs.
    others = [label for label in questions.against.values() if [label] != questions.deployments]
    against = f", against {' and '.join(others)}" if others else ""
    each = ", each" if len(questions.deployments) > 1 else ""
    when = f"{each} after the load of its first start" if questions.alone != questions.deployments else each
    whose = plural(len(questions.deployments), "deployment")
    yield f"quality of {whose}{when}: {' and '.join(kinds)}{against}"
    if questions.note:
        yield f"quality.text: {questions.note}"
    if questions.alone:
        yield f"started once more, only for quality: {', '.join(questions.alone)}"
