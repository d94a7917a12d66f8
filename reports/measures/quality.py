"""How well each deployment answers: compared with its reference, asked again, under load, and in tasks.

Also says which deployments cannot win because of their answers. reports/data/asked.py chooses the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.special import bdtr

from serving_bench.harness.contracts import LOGPROBS, Deployment, Fact, Item, Way, because
from serving_bench.harness.store.quality_table import reference_rank
from serving_bench.reports.data import (
    Heard,
    Run,
    heard_of,
    once,
    references_of,
    unlike_of,
    why_no_reference,
    why_unlike,
)
from serving_bench.reports.measures.fidelity import Fidelity, Outcome, fidelity, outcomes
from serving_bench.reports.measures.metrics import mean
from serving_bench.reports.measures.slo import wilson
from serving_bench.reports.measures.written import precise
from serving_bench.reports.stats.intervals import of_values

# In the order in which they are reported. A given text is the same to its end, answers only until they part.
WAYS: tuple[Way, ...] = ("text", "chat")
# Ways of asking a prompt again.
AGAIN: tuple[Way, ...] = ("again", "load")


@dataclass(frozen=True)
class Quality:
    """How well one deployment answers."""

    label: str
    against: str | None = None  # its reference's name; None if there is none
    is_reference: bool = False
    by_way: Mapping[Way, Fidelity] = field(default_factory=dict)
    unlike: Fact | None = None  # the first token that differs from most others of its model
    why: Fact | None = None  # why there is no fidelity
    again: Mapping[Way, Mapping[Outcome, int]] = field(default_factory=dict)  # of prompts asked again

    @property
    def judged(self) -> list[tuple[tuple[float, float], Fidelity]]:
        """The ways that a limit can judge, each after its interval.

        The one with the highest lower end comes first: a wrong decode kernel shows only by chat, a wrong rope
        base by texts.
        """
        ways = self.by_way.values()
        limited = [(each.interval, each) for each in ways if each.interval and each.k >= LOGPROBS]
        return sorted(limited, key=lambda each: -each[0][0])

    @property
    def told(self) -> Fidelity | None:
        """The way to report: the first of `judged`, otherwise the first that has a divergence."""
        judged = [each for _, each in self.judged] or self.by_way.values()
        return next((each for each in judged if each.kl_nats is not None), None)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of its mean KL divergence in nats, by the worse way; None if no limit can judge it."""
        return furthest([ends for ends, _ in self.judged])

    @property
    def why_not_known(self) -> Fact | None:
        """Why no limit can judge it; None if one can, or if it is the reference."""
        if self.is_reference or self.interval:
            return None
        if self.told:
            return because("few_likeliest", k=self.told.k, needed=LOGPROBS)
        return self.why

    @property
    def few(self) -> Fact | None:
        """What was compared, if that is too little to tell: `only 1 answer, 1 token`."""
        return None if self.told else next((each.few for each in self.by_way.values() if each.few), None)


def furthest(intervals: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return the highest lower and the highest upper end; None without an interval.

    The result is above a limit if any interval is, and within it if all are.
    """
    return (max(low for low, _ in intervals), max(high for _, high in intervals)) if intervals else None


@once
def quality_of(run: Run) -> dict[str, Quality]:
    """Return the quality of each deployment by label; empty if none was asked."""
    heard = {label: each for label, each in heard_of(run).items() if each.is_asked}
    return {label: _quality(run, label, heard.get(label)) for label in run.deployments} if heard else {}


def fidelities(run: Run) -> list[tuple[Quality, Fidelity | None]]:
    """Return each deployment's quality with each of its ways, or with None if it has none."""
    qualities = quality_of(run).values()
    return [(each, by_way) for each in qualities for by_way in each.by_way.values() or (None,)]


def asked_again(run: Run) -> list[tuple[str, Way, int, Mapping[Outcome, int]]]:
    """Return a row for each deployment and way of asking again: label, way, requests in flight, outcomes."""
    at_once = {label: each.record.in_flight or 1 for label, each in heard_of(run).items()}
    return [
        (label, way, at_once[label] if way == "load" else 1, counts)
        for label, quality in quality_of(run).items()
        for way, counts in quality.again.items()
    ]


def _quality(run: Run, label: str, heard: Heard | None) -> Quality:
    if heard is None:
        return Quality(label, why=because("not_asked"))
    base = references_of(run).get(heard.model)
    alone = heard.answered("chat")
    again = {way: outcomes(alone, heard.rows[way]) for way in AGAIN if heard.rows.get(way)}
    odd = unlike_of(run)
    quality = Quality(label, base.name if base else None, base is heard, again=again, unlike=odd.get(label))
    if quality.unlike:
        return replace(quality, why=because("not_comparable", why=quality.unlike))
    if base is None or base is heard:
        is_mute = heard.missing and not heard.is_told
        why = heard.missing[0] if is_mute else why_no_reference(run, heard.model)
        return quality if base else replace(quality, why=why)
    if base.name in odd:
        why = because("reference_not_comparable", reference=base.name, why=odd[base.name])
        return replace(quality, why=why)
    return _held(quality, heard, base, [each for each in heard_of(run).values() if each.model == heard.model])


def answers_by(deployment: Deployment) -> tuple[Any, ...]:
    """Return what a deployment's answers depend on beside its model: its quantization (`-` if not known), the
    type of its KV cache, and how it speculates."""
    terms = deployment.terms
    speculation = None if terms.speculation == "off" else terms.speculation
    return deployment.quantization, terms.kv_cache_type, speculation, terms.speculative_tokens


def nearness(heard: Heard, base: Heard) -> Quality:
    """Return how near a deployment's answers are to those of `base`, or why that is not known."""
    quality = Quality(heard.name, base.name)
    if heard.model != base.model:
        return replace(quality, why=because("other_model", reference=base.name, model=base.model))
    if heard.record.sha256 == base.record.sha256 and (why := why_unlike(heard, base)):
        return replace(quality, unlike=why, why=because("not_comparable", why=why))
    return _held(quality, heard, base)


def _held(quality: Quality, heard: Heard, base: Heard, others: Sequence[Heard] = ()) -> Quality:
    if heard.record.sha256 != base.record.sha256:
        return replace(quality, why=because("other_prompts", reference=base.name))
    # All deployments of a comparison are cut to the number of tokens that each of them names.
    alike = [heard, base, *others]
    ks = {way: min((k for each in alike if (k := each.named(way))), default=0) for way in WAYS}
    by_way = {way: each for way, k in ks.items() if (each := fidelity(way, heard, base, k))}
    quality = replace(quality, by_way=by_way)
    names = because("other_token_names", reference=base.name)
    whys = [quality.few, *heard.missing, *base.missing, names]
    return quality if quality.told else replace(quality, why=next(filter(None, whys)))


# --- the limit -------------------------------------------------------------------------------------


def limit_of(run: Run) -> tuple[float, str] | None:
    """Return the limit of the mean KL divergence in nats, and the key that sets it; None without a limit."""
    limit, is_objective = run.record.quality.limit_nats, "slo.kl_nats.mean" in run.record.settings
    return None if limit is None else (limit, "slo.kl_nats.mean" if is_objective else "quality.limit")


@once
def beyond_limit(run: Run) -> dict[str, Fact]:
    """Return the deployments that cannot win because of their answers, by label, with the reason.

    Either their tokens are not those of most, or their mean KL divergence or a score is not known to be good
    enough. A deployment whose quality was not measured is not excluded.
    """
    qualities, limit = quality_of(run).values(), limit_of(run)
    unlike = {each.label: each.why for each in qualities if each.unlike and each.why}
    beyond = {each.label: why for each in qualities if limit and (why := _why_beyond(each, *limit))}
    return {**below_least(run), **beyond, **unlike}


def ruled_out(run: Run) -> dict[str, Fact]:
    """Return those of `beyond_limit` of which it is known, since the whole interval is beyond the limit."""
    qualities, limit = quality_of(run), limit_of(run)
    known = {
        each.label
        for each in qualities.values()
        if each.unlike or (limit and any(low > limit[0] for (low, _), _ in each.judged))
    }
    return {label: why for label, why in beyond_limit(run).items() if label in known}


def _why_beyond(quality: Quality, limit: float, key: str) -> Fact | None:
    for (_, high), each in quality.judged:
        if high > limit:
            of = {"kl": precise(each.kl_nats, 2), "by_chat": each.by_chat, "reference": quality.against}
            if each.kl_nats and each.kl_nats > limit:
                return because("kl_beyond", key=key, limit=limit, **of)
            return because("kl_not_within", key=key, limit=limit, high=precise(high, 2), **of)
    return None


# --- tasks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flips:
    """How many items only one of a deployment and its reference answered correctly.

    `broken`: only the reference. `mended`: only the deployment. `items`: those that both answered, with a
    score of 0 or 1. `p`: McNemar's exact test, the chance of so uneven a split if both are equally good.
    """

    against: str
    items: int
    broken: int
    mended: int
    p: float


@dataclass(frozen=True)
class TaskScore:
    """A deployment's mean score over the items of a task that it answered (`scored` of `items`).

    `interval`: 95 % over items, Wilson's if all scores are 0 or 1, otherwise Student's. `flips`: None for the
    reference itself, or without one.
    """

    label: str
    task: str
    items: int
    scored: int
    score: float | None
    interval: tuple[float, float] | None
    flips: Flips | None


@once
def task_scores(run: Run) -> list[TaskScore]:
    """Return the scores by task, then by deployment; empty if no task was asked."""
    all_heard = heard_of(run).values()
    tasks = dict.fromkeys(task for heard in all_heard for task in heard.tasks)
    return [
        _score(task, heard, _reference(run, task, heard))
        for task in tasks
        for heard in all_heard
        if task in heard.tasks
    ]


def scores_of(heard: Heard | None, base: Heard | None = None) -> dict[str, TaskScore]:
    """Return a deployment's score of each task that it was asked, with the flips against `base`."""
    if heard is None:
        return {}
    return {task: _score(task, heard, base if base and task in base.tasks else None) for task in heard.tasks}


@once
def below_least(run: Run) -> dict[str, Fact]:
    """Return the deployments with a task's score that is not known to reach the least allowed, by label, with
    the reason."""
    least, is_objective = run.record.quality.least_score_share, "slo.tasks.score" in run.record.settings
    key = "slo.tasks.score" if is_objective else "quality.least_score"
    return {
        each.label: because(
            "score_not_reached",
            score=100 * each.score,
            task=each.task,
            low=100 * each.interval[0],
            key=key,
            least=least,
        )
        for each in task_scores(run)
        if least is not None and each.score is not None and each.interval and each.interval[0] < least
    }


def _score(task: str, heard: Heard, base: Heard | None) -> TaskScore:
    items = heard.tasks[task]
    scores = [each.score for each in items if each.score is not None]
    flips = _flips(items, base.tasks[task], base.name) if base and base is not heard else None
    return TaskScore(heard.name, task, len(items), len(scores), mean(scores), _interval(scores), flips)


def _reference(run: Run, task: str, tested: Heard) -> Heard:
    """Return the reference of a task's scores: that of the probabilities, or else the one with most bits."""
    references = references_of(run)
    heard = [*references.values(), *heard_of(run).values()]
    alike = (each for each in heard if each.model == tested.model and task in each.tasks)
    return min(alike, key=lambda each: (each is not references.get(tested.model), reference_rank(each.start)))


def _interval(scores: Sequence[float]) -> tuple[float, float] | None:
    if len(scores) < 2:
        return None
    if set(scores) <= {0.0, 1.0}:
        return wilson(int(sum(scores)), len(scores))
    return of_values(scores, is_log=False).interval()


def _flips(items: Sequence[Item], theirs: Sequence[Item], against: str) -> Flips:
    before = {(each.item, each.prompt_sha256): each.score for each in theirs}
    pairs = [(before.get((each.item, each.prompt_sha256)), each.score) for each in items]
    decided = [pair for pair in pairs if set(pair) <= {0.0, 1.0}]
    broken, mended = decided.count((1.0, 0.0)), decided.count((0.0, 1.0))
    # The distribution is symmetric: both tails are as likely.
    p = min(1.0, 2 * float(bdtr(min(broken, mended), broken + mended, 0.5))) if broken + mended else 1.0
    return Flips(against, len(decided), broken, mended, p)
