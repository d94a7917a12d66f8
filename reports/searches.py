"""What a search found: on each start the highest load that kept the objectives, over starts its mean, and the
ratio of two deployments'. Draws nothing.

Recomputed from the requests on reading, by the rules that the search went by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from reports.attainment import Judged
from reports.cells import Cell, level_text, load_family, load_level
from reports.goodput import judged_cells
from reports.intervals import Estimate, of_pairs, of_values
from reports.verdicts import STARTS_NEEDED, Question, Verdict, decide, log_margin

if TYPE_CHECKING:
    from reports.frames import Run


@dataclass(frozen=True)
class Tried:
    """One load on one start: its windows in the order of their measurement, and what they came to together;
    None where they say nothing."""

    level: float
    load: str
    cells: tuple[Cell, ...]
    judged: Judged | None

    @property
    def keeps(self) -> bool | None:
        """Clear or not, whether it counts as kept; None where nothing is known."""
        if self.judged is None:
            return None
        return self.judged.verdict == "kept" or (self.judged.verdict == "unclear" and self.judged.meets)


@dataclass(frozen=True)
class Answer:
    """Of one start. `kept`: the highest load that kept every objective below all that did not, None where
    none did; `broken`: the lowest that did not, None where none was found. `proven_kept` and `proven_broken`
    are those whose intervals say so. `is_whole`: the search came to its end on this start. `limit`: the
    highest load that the search was allowed."""

    deployment: str
    scenario: str
    start: str
    repeat: int
    family: str
    tried: tuple[Tried, ...]
    kept: float | None
    broken: float | None
    proven_kept: float | None
    proven_broken: float | None
    is_whole: bool
    limit: float | None

    @property
    def uncertain(self) -> list[Tried]:
        """The ends of the bracket that were decided by their shares alone, intervals notwithstanding."""
        ends = (self.kept, self.broken)
        return [t for t in self.tried if t.level in ends and t.judged and t.judged.verdict == "unclear"]

    @property
    def is_at_limit(self) -> bool:
        """Whether the highest load that was allowed is kept: the answer is that or more."""
        return self.broken is None and self.kept is not None and self.kept == self.limit

    @property
    def words(self) -> str:
        """`12 users`, `12/s`, `64 users or more`, `none`, `not known`."""
        if not self.is_whole:
            return "not known"
        if self.kept is None:
            return "none"
        return load_words(self.family, self.kept) + (" or more" if self.is_at_limit else "")


def load_words(family: str, level: float) -> str:
    """A level with its unit: `12 users`, `2.5/s`. A mean over starts may be no whole number of users."""
    if family == "closed loop":
        text = f"{level:,.0f}" if level % 1 == 0 else f"{level:,.1f}"
        return f"{text} user{'' if level == 1 else 's'}"
    return f"{level_text(family, float(f'{level:.4g}'))}/s"


def answers_of(run: Run) -> list[Answer]:
    """Of each deployment and scenario, in the plan's order, and its starts."""
    by_start: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in run.planned_cells:
        key = (cell.label, cell.planned.scenario.label, cell.planned.repeat)
        by_start.setdefault(key, []).append(cell)
    order = list(run.deployments)
    keys = sorted(by_start, key=lambda key: (order.index(key[0]), key[1], key[2]))
    return [_answer(run, by_start[key]) for key in keys]


def _answer(run: Run, cells: Sequence[Cell]) -> Answer:
    by_level: dict[float, list[Cell]] = {}
    for cell in cells:
        by_level.setdefault(load_level(cell.load), []).append(cell)
    tried = tuple(
        Tried(level, each[0].load_label, tuple(each), judged_cells(run, each))
        for level, each in sorted(by_level.items())
    )
    broken = min((each.level for each in tried if each.keeps is False), default=None)
    below = math.inf if broken is None else broken
    kept = max((each.level for each in tried if each.keeps and each.level < below), default=None)
    clear = [(each.level, each.judged.verdict) for each in tried if each.judged]
    record = run.start_of(cells[0])
    return Answer(
        deployment=cells[0].label,
        scenario=cells[0].planned.scenario.label,
        start=record.name if record else cells[0].start.name,
        repeat=cells[0].planned.repeat,
        family=load_family(cells[0].load),
        tried=tried,
        kept=kept,
        broken=broken,
        proven_kept=max((v for v, said in clear if said == "kept" and v < below), default=None),
        proven_broken=min((v for v, said in clear if said == "broken"), default=None),
        is_whole=record is not None and record.status == "completed",
        limit=run.record.search.highest if run.record.search else None,
    )


# --- over starts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Capacity:
    """A deployment's answer. `estimate`: the mean over starts, None where a start has no answer of its own;
    `why` says why. `is_least`: a start kept the highest load that was allowed, so it is that or more.
    `verdict`: against its model's baseline; None for the baseline itself."""

    deployment: str
    scenario: str
    answers: tuple[Answer, ...]
    estimate: Estimate | None
    why: str | None
    is_least: bool
    baseline: str | None = None
    verdict: Verdict | None = None

    @property
    def family(self) -> str:
        return self.answers[0].family


def capacities_of(run: Run) -> list[Capacity]:
    """Of each deployment and scenario, in the plan's order, with the ratio to the baseline's: paired by
    repeat, all ratios decided together."""
    found = [
        _capacity(list(each))
        for _, each in itertools.groupby(answers_of(run), key=lambda a: (a.deployment, a.scenario))
    ]
    baselines = run.comparisons.baselines
    compared = []
    for each in found:
        baseline = baselines.get(run.deployments[each.deployment].model)
        other = next((o for o in found if (o.deployment, o.scenario) == (baseline, each.scenario)), None)
        if other is not None and other is not each:
            compared.append((each, other))
    verdicts = decide([_question(run, a, b) for a, b in compared])
    by_key = {
        (a.deployment, a.scenario): (b.deployment, verdict)
        for (a, b), verdict in zip(compared, verdicts, strict=True)
    }
    return [_compared(each, by_key.get((each.deployment, each.scenario))) for each in found]


def _compared(each: Capacity, found: tuple[str, Verdict] | None) -> Capacity:
    if found is None:
        return each
    baseline, verdict = found
    return replace(each, baseline=baseline, verdict=verdict)


def _capacity(answers: Sequence[Answer]) -> Capacity:
    known = [answer.kept for answer in answers if answer.is_whole and answer.kept is not None]
    why = _why_none(answers) if len(known) < len(answers) else None
    estimate = of_values(known, is_log=True) if not why else None
    is_least = any(answer.is_at_limit for answer in answers)
    return Capacity(answers[0].deployment, answers[0].scenario, tuple(answers), estimate, why, is_least)


def _why_none(answers: Sequence[Answer]) -> str:
    cut = sum(not answer.is_whole for answer in answers)
    if cut:
        return f"the search did not come to its end on {cut} of {len(answers)} starts"
    none = sum(answer.kept is None for answer in answers)
    return f"no load that was tried kept the objectives on {none} of {len(answers)} starts"


def _question(run: Run, a: Capacity, b: Capacity) -> Question:
    """Which serves more. Nothing counts as the same where the search was coarser than the margin."""
    pairs = [
        (mine.kept, theirs.kept)
        for mine in a.answers
        for theirs in b.answers
        if mine.repeat == theirs.repeat and mine.kept is not None and theirs.kept is not None
    ]
    search, margin = run.record.search, run.record.compare.margin_share
    is_coarse = search is not None and search.over == "rate" and search.precision_share > margin
    estimate = of_pairs([x for x, _ in pairs], [y for _, y in pairs], is_log=True) if pairs else None
    return Question(estimate, "higher", 0.0 if is_coarse else log_margin(margin), _why_not(run, a, b))


def _why_not(run: Run, a: Capacity, b: Capacity) -> str | None:
    """Why two capacities get no verdict; None where they may."""
    for each in (a, b):
        if each.why:
            return f"{each.deployment}: {each.why}"
    if any(record.attached for record in run.start_records):
        return "the server was running already and was not restarted between repeats"
    if a.is_least or b.is_least:
        return "search.highest was kept; a higher one would tell them apart"
    if len(a.answers) < STARTS_NEEDED:
        return f"a verdict needs {STARTS_NEEDED} starts of each deployment or more, here {len(a.answers)}"
    return None


def verdict_count(capacities: Sequence[Capacity]) -> int:
    """How many ratios were decided together."""
    return sum(each.verdict is not None and each.verdict.kind != "none" for each in capacities)


# --- in words --------------------------------------------------------------------------------------


def words(each: Capacity) -> str:
    """`12 users [11, 13], mean of 3 starts (12, 12, 11)`; of a start without an answer what it is."""
    by_start = ", ".join(answer.words for answer in each.answers)
    if each.estimate is None:
        return f"{by_start}: {each.why}" if len(each.answers) > 1 else f"{by_start}; {each.why}"
    mean = load_words(each.family, each.estimate.shown) + (" or more" if each.is_least else "")
    if each.estimate.k < 2:
        return f"{mean}, of one start"
    low, high = each.estimate.interval()
    return f"{mean} [{low:.4g}, {high:.4g}], mean of {each.estimate.k} starts ({by_start})"


def as_plain(each: Capacity) -> dict[str, Any]:
    """For JSON: the answer, its interval over starts, and each start's bracket."""
    estimate = each.estimate
    interval = estimate.interval() if estimate and estimate.k > 1 else None
    return {
        "deployment": each.deployment,
        "scenario": each.scenario,
        "load": each.family,
        "answer": estimate.shown if estimate else None,
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
        "why": each.why,
        "is_least": each.is_least,
        "starts": [
            {
                "start": answer.start,
                "kept": answer.kept,
                "broken": answer.broken,
                "proven_kept": answer.proven_kept,
                "proven_broken": answer.proven_broken,
                "is_whole": answer.is_whole,
                "is_at_limit": answer.is_at_limit,
                "trials": sum(len(tried.cells) for tried in answer.tried),
            }
            for answer in each.answers
        ],
        "baseline": each.baseline,
        "verdict": asdict(each.verdict) if each.verdict else None,
    }
