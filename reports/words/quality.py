"""How well deployments answer, in words: for the answer, for cells of tables, and for the quality section."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from serving_bench.harness.contracts import LOGPROBS
from serving_bench.reports.data import Run, asking_quality, chosen_of, gathered, heard_of, references_of
from serving_bench.reports.measures import NOTHING, metric_of, number, plural, precise, several
from serving_bench.reports.measures.fidelity import Fidelity
from serving_bench.reports.measures.quality import Flips, Quality, TaskScore, quality_of, task_scores
from serving_bench.reports.stats.intervals import beaten
from serving_bench.reports.verdicts import Decision, Stand
from serving_bench.reports.words.verdict_words import title_of

# A smaller divergence is rounding, and its size says nothing.
LEAST_NATS = 1e-5
# Columns of a table of deployments.
HEADS = ("KL nats", "same token %")
# What would help, and the command for it, empty if none does.
Advice = tuple[str, str]


class Cell(NamedTuple):
    """A figure and its interval, each as text; the interval may be empty."""

    text: str
    ends: str = ""

    @property
    def plain(self) -> str:
        """Return it as plain text: `0.0032 [0.0031, 0.0033]`."""
        return " ".join(filter(None, self))


def nats(value: float | None) -> str:
    """Return a divergence with two digits: `0.0032`."""
    return f"<{LEAST_NATS:.5f}" if value and value < LEAST_NATS else precise(value, 2)


def ends(interval: tuple[float, float] | None) -> str:
    """Return `[0.0031, 0.0033]`; empty without an interval."""
    return f"[{nats(interval[0])}, {nats(interval[1])}]" if interval else ""


def _how(fidelity: Fidelity) -> str:
    """Return ` by chat` or ` k 5`, where a divergence is not by text or is over fewer than 20 tokens."""
    return fidelity.by_chat + (f" k {fidelity.k}" if fidelity.k < LOGPROBS else "")


def cells(quality: Quality | None) -> tuple[Cell, Cell]:
    """Return a deployment's divergence and its share of same tokens."""
    if quality is None or quality.told is None:
        few = f"({quality.few})" if quality and quality.few else ""
        return Cell("reference" if quality and quality.is_reference else NOTHING, few), Cell(NOTHING)
    interval = f"{ends(quality.told.interval)}{_how(quality.told)}".strip()
    return Cell(nats(quality.told.kl_nats), interval), Cell(number(quality.told.agreement, 0, 100))


def against(quality: Quality) -> str:
    """Return `over 8 texts, against llama_cpp fp16`, or why the divergence is not known."""
    if not quality.told:
        return str(quality.why or NOTHING)
    over = plural(quality.told.items, "text" if quality.told.way == "text" else "answer")
    return f"over {over}, against {quality.against}"


def columns(run: Run, label: str) -> dict[str, Cell]:
    """Return a deployment's quality by column; empty if no deployment of the run was asked."""
    qualities = quality_of(run)
    return (dict(zip(HEADS, cells(qualities.get(label)), strict=True)) if qualities else {}) | scores(
        run, label
    )


def scores(run: Run, label: str) -> dict[str, Cell]:
    """Return a deployment's scores by column, one for each task of the run."""
    tasks = list(dict.fromkeys(each.task for each in task_scores(run)))
    by_task = {each.task: score(each) for each in task_scores(run) if each.label == label}
    heads = ["score %"] if len(tasks) == 1 else [f"score % ({task})" for task in tasks]
    return dict(zip(heads, (by_task.get(task, Cell(NOTHING)) for task in tasks), strict=True))


def _until(fidelity: Fidelity) -> str:
    """Return for how many tokens half of the answers are the reference's: `11`, `16 or more`."""
    most = len(fidelity.same) - 1
    return (
        ("" if most < 0 else f"{most} or more") if fidelity.median_same is None else str(fidelity.median_same)
    )


def fidelity_texts(of: Fidelity) -> dict[str, str]:
    """Return the columns of a table of fidelities."""
    return {
        "by": of.way,
        "KL p99": nats(of.kl_p99_nats),
        "same token %": number(of.agreement, 1, 100),
        "tokens until half differ": _until(of),
        "perplexity": number(of.perplexity, 1) if of.perplexity else "",
        "perplexity ratio": number(of.perplexity_ratio, 3) if of.perplexity_ratio else "",
        "RMS change %": number(of.rms_change, 1, 100) if of.perplexity_ratio else "",
        "k": str(of.k),
        "tokens": f"{of.tokens:,}{f' ({of.left_out} without KL)' if of.left_out else ''}",
        "texts or answers": str(of.items),
    }


def score(task_score: TaskScore) -> Cell:
    """Return a score and its interval, in percent."""
    ends = task_score.interval and ", ".join(number(end, 1, 100) for end in task_score.interval)
    return Cell(number(task_score.score, 1, 100), f"[{ends}]" if ends else "")


def flips_text(flips: Flips) -> str:
    """Return `of 300 items 56 right to wrong, 5 wrong to right, p 0.012`."""
    turned = f"{flips.broken} right to wrong, {flips.mended} wrong to right"
    return f"of {flips.items:,} items {turned}, p {precise(flips.p, 3)}"


def task_texts(of: TaskScore) -> dict[str, str]:
    """Return the columns of a table of tasks, after the score."""
    flips = of.flips
    return {
        "items": f"{of.scored} of {of.items}",
        "right to wrong": str(flips.broken) if flips else "",
        "wrong to right": str(flips.mended) if flips else "",
        "p": precise(flips.p, 3) if flips else "",
    }


# --- the answer ------------------------------------------------------------------------------------


def clause(run: Run, label: str) -> str:
    """Return what the answer adds about the quality of the deployment to serve; empty if it was not asked."""
    return "; ".join(["", *_nearness(run, label), *_right(run, label)])


def _nearness(run: Run, label: str) -> Iterator[str]:
    quality = quality_of(run).get(label)
    if quality is None:
        return
    if quality.is_reference:
        # Without another deployment held against it, it is no reference.
        is_held = [each.label for each in quality_of(run).values() if each.against == label] != [label]
        yield from [f"{label} is the quality reference"] * is_held
    elif quality.interval is None or quality.told is None:
        yield f"its quality is not known ({quality.why_not_known})"
    else:
        kl, same = nats(quality.told.kl_nats), _of_hundred(quality.told.agreement or 0.0)
        nearness = f"{quality.against}{_how(quality.told)}"
        yield f"quality against {nearness}: KL {kl}, the same token at {same} positions"


def advice(run: Run, label: str) -> Advice:
    """Return what to run to learn a deployment's quality; nothing if it is known."""
    quality = quality_of(run).get(label)
    helps = asking_quality(run) if quality and quality.why_not_known else ""
    return ("To measure its quality", helps) if helps else ("", "")


def _right(run: Run, label: str) -> list[str]:
    """Return `35.0 % of 300 items of bench-basics right` for each task, over the items that have a score."""
    return [
        f"{100 * each.score:.1f} % of {plural(each.scored, 'item')} of {each.task} right"
        for each in task_scores(run)
        if each.label == label and each.score is not None
    ]


def _of_hundred(share: float) -> str:
    # 99.6 % is not all, so it is 99 of 100.
    return f"{min(round(100 * share), 99 if share < 1 else 100)} of 100"


def unless(run: Run, decision: Decision) -> str:
    """Return the best deployment left out for its answers and how much worse they are, if it leads."""
    costs = dict(_costs(run, decision))
    is_ahead = max(costs, default=0.0) > 1 + run.record.compare.margin_share
    return f"If worse answers are acceptable: {costs[max(costs)]}." if is_ahead else ""


def _costs(run: Run, decision: Decision) -> Iterator[tuple[float, str]]:
    metric = metric_of(decision.metric)
    for group in decision.ranked if decision.groups else ():
        label = group.deployment
        value, first = (
            decision.value(run, each, decision.metric).mean for each in (group, decision.groups[0])
        )
        worse = " and ".join(_worse(run, label)) if label in decision.beyond else ""
        if worse and value and first:
            ratio = first / value if metric.better == "lower" else value / first
            is_speed = metric.words[0] == "faster"
            amount = f"has {value / first:.1f}x the {title_of(decision.metric)}"
            much = f"is {ratio:.1f}x as fast" if is_speed else amount
            yield ratio, f"{label} {much}, but {worse}"


def _worse(run: Run, label: str) -> Iterator[str]:
    quality = quality_of(run).get(label)
    if quality and quality.told:
        places, kl = _of_hundred(1 - (quality.told.agreement or 0.0)), nats(quality.told.kl_nats)
        yield f"picks another token at {places} positions (KL {kl}{_how(quality.told)})"
    yield from (f"gets {each}" for each in _right(run, label))


def unless_nearest(run: Run, decision: Decision) -> str:
    """Return the contender nearest to the reference, if it is known to be nearer than the first one."""
    nearest, *others = (quality_of(run).get(group.deployment) for group in decision.groups)
    nearer = [
        (each.interval[1], f"{each.label} (KL {cells(each)[0][0]} against {cells(nearest)[0][0]}).")
        for each in others
        if nearest and nearest.interval and each and each.interval and each.interval[1] < nearest.interval[0]
        if (each.against, [*each.by_way]) == (nearest.against, [*nearest.by_way])
    ]
    return f"If quality matters most: {min(nearer)[1]}" if nearer else ""


# --- the section -----------------------------------------------------------------------------------


def claim(run: Run) -> str:
    """Return how far each deployment is from its reference, and what it gets right."""
    qualities = quality_of(run).values()
    against = several([each.against for each in qualities if each.told and each.against])
    parts = {
        f"Against {against}: ": [
            f"{each.label} KL {nats(each.told.kl_nats)}{_how(each.told)}" for each in qualities if each.told
        ],
        "Not known: ": [f"{each.label} ({each.few})" for each in qualities if each.few],
        "": [f"{label} {each}" for label in run.deployments for each in _right(run, label)],
    }
    return "".join(f"{begin}{several(labels)}. " for begin, labels in parts.items() if labels)


def front(stands: Sequence[Stand]) -> str:
    """Return which deployments are beaten in speed, quality and memory at once, by means, and how marks are
    drawn."""
    points = {
        each.group.deployment: (each.speed.mean or 0.0, -each.kl_nats, -each.memory_bytes) for each in stands
    }
    worse = [f"{label} (by {other})" for label, other in beaten(points).items()]
    clause = "Beaten in speed, quality and memory at once, by their means: "
    clause += several(worse) or "no deployment"
    return f"{clause}. A larger mark means more peak memory; the reference is at 0."


def notes(run: Run) -> list[str]:
    """Return what was not measured and why, and what references are made from if that bears on quality."""
    heard = {each.name: each for each in (*heard_of(run).values(), *chosen_of(run).values())}
    if not heard:
        helps = asking_quality(run)
        told_by = f" To measure it: {helps}" if helps else ""
        return [f"Quality was not measured; a smaller quantization may answer worse.{told_by}"]
    whys = (
        (f"{str(why).rstrip('.')}.", f"{label} by {way}")
        for label, each in heard.items()
        for way, why in each.record.missing.items()
    )
    missing = [f"Not measured, or not all: {several(what)}: {why}" for why, what in gathered(whys).items()]
    return [*missing, *origins(run)]


def origins(run: Run) -> list[str]:
    """Return what the references in use are made from, if that bears on quality."""
    used = {each.against for each in quality_of(run).values() if each.told}
    return [
        f"KL is against {base.name} ({base.start.notes[0]})."
        for base in references_of(run).values()
        if base.name in used and base.start.notes
    ]
