"""The types Check and Finding, and the decorators that make checks of functions.

A finding marks a number only if that number may not be compared: unequal work, failed requests, stand-ins for
kernels, a client error that is large beside the value, or an invalid cell. Other findings are only listed.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving_bench.reports.data import Cell, Group, Run, gathered
from serving_bench.reports.measures import LATENCIES, several

# Token rates, and energy and cost, which are computed from them.
TOKENS = (
    "output_tokens_per_s", "output_tokens_per_s_per_core", "energy_j_per_output_token",
    "cost_per_million_output_tokens",
)  # fmt: skip
RATES = (
    "requests_per_s", "goodput_per_s", "input_tokens_per_s", "batch_tokens_per_s", "steps_per_s",
    "answered_per_s", *TOKENS,
)  # fmt: skip
# Durations of a batch, a burst and an agent's task, which depend on the length of answers.
_SPANS = ("makespan_s", "recovery_s", "task_s")
# These count requests whose latencies are within limits, so what affects a latency affects them.
BY_OBJECTIVES = ("slo_share", "goodput_per_s")
_OF_PARTS = ("prefill_tokens_per_s", "decode_tokens_per_s")
SPEED = (*LATENCIES, "slo_share", "first_answer_s", *_OF_PARTS, *_SPANS, *RATES)
# Affected by when a request is sent.
FROM_SENDING = ("ttft_s", "e2e_s", "first_answer_s", "prefill_tokens_per_s", *BY_OBJECTIVES)
# Computed from token counts.
OF_COUNTS = (
    "tpot_s", "decode_tokens_per_s", "batch_tokens_per_s", *BY_OBJECTIVES, *TOKENS, "cost_per_request",
)  # fmt: skip
# Affected by the length of answers: with shorter ones, reading prompts takes a larger part of the time.
OF_LENGTHS = ("e2e_s", "slo_share", "cost_per_request", *_SPANS, *RATES)


@dataclass(frozen=True)
class Case:
    """One case of a finding. `of`: the deployments that it is about.

    `subject`: who, as a sentence names it: `vllm awq at 4 users (start 2)`; empty if `what` says it. `cells`:
    those that it is about; a case without cells marks nothing.
    """

    subject: str
    what: str
    cells: Sequence[Cell] = ()
    of: tuple[str, ...] = ()
    remedy: str = ""  # if that of the check does not fit this run
    command: str = ""  # that would help this run
    brief: str = ""  # the first of several clauses of `what`

    @property
    def text(self) -> str:
        return f"{self.subject}: {self.what}" if self.subject else self.what


@dataclass(frozen=True)
class Finding:
    """A reason to distrust a run."""

    check: str  # the name of the check
    title: str
    text: str  # what was seen, with up to four cases
    advice: str  # what to do
    cells: tuple[int, ...] = ()  # numbers of the cells that it is about; empty: the whole run
    metrics: tuple[str, ...] = ()  # names of the metrics that it affects; empty: all
    marks: bool = False  # it marks the values of these cells and metrics
    short: str = ""  # `text` with the first clause of the first case only
    is_at_name: bool = False  # it marks the deployment's name instead of each value
    command: str = ""  # what to run for this run; empty if no command helps

    @property
    def remedy(self) -> str:
        """What to do, with the command if there is one."""
        return f"{self.advice} Here: {self.command}" if self.command else self.advice


Look = Callable[[Run], Iterable[Case]]


@dataclass(frozen=True)
class Check:
    """A search for one reason to distrust a run. `look` yields its cases in a run."""

    look: Look
    title: str
    text: str  # the first four cases replace `{}`
    remedy: str
    metrics: tuple[str, ...] = SPEED
    marks: bool = False  # for the others see Finding
    is_at_name: bool = False
    can_look: Callable[[Run], object] = bool  # true if the run recorded what the check needs
    of_requests: bool = False  # it needs only requests, which files of other tools have as well

    @property
    def name(self) -> str:
        return self.look.__name__

    def find(self, run: Run) -> Finding | None:
        """Return what it found; None if it found nothing."""
        cases = list(self.look(run))
        if not cases:
            return None
        cells = tuple(sorted({cell.number for case in cases for cell in case.cells}))
        return Finding(
            check=self.name,
            title=self.title,
            text=self.text.replace("{}", several([case.text for case in cases], "; ")),
            advice=next((case.remedy for case in cases if case.remedy), self.remedy),
            cells=cells,
            metrics=self.metrics,
            marks=self.marks and bool(cells),
            short=self.text.replace("{}", _first(run, cases)),
            is_at_name=self.is_at_name,
            command=cases[0].command,
        )


def check(
    title: str, text: str, remedy: str, metrics: tuple[str, ...] = SPEED, **more: Any
) -> Callable[[Look], Check]:
    """Make a check of the function that it decorates. For the arguments see Check."""
    return lambda look: Check(look, title, text, remedy, metrics, **more)


def _first(run: Run, cases: Sequence[Case]) -> str:
    """Return the first case in words, and how many deployments have one.

    `all 3 deployments: 1 start` if they are the same, otherwise `all 3 deployments, such as vllm awq at 4
    users: 1 start`.
    """
    is_alike, labels = len({case.what for case in cases}) == 1, {label for case in cases for label in case.of}
    first = replace(cases[0], what=cases[0].brief or cases[0].what)
    if len(labels) < 2 or len(first.of) != 1:
        return first.text
    count = f"all {len(labels)}" if len(labels) > 2 else "both"
    which = f"{count if len(labels) == len(run.deployments) else len(labels)} deployments"
    return f"{which}: {first.what}" if is_alike else f"{which}, such as {first.text}"


def of_deployments(run: Run, labels: Collection[str], what: object, subject: str = "") -> Case:
    """Return a case about these deployments and all their cells."""
    cells = [cell for cell in run.planned_cells if cell.label in labels]
    return Case(subject or several(list(labels)), str(what), cells, tuple(labels))


def of_group(group: Group, what: str, cells: Sequence[Cell] | None = None) -> Case:
    """Return a case about a deployment at a load, and its counted cells unless others are given."""
    return Case(group.name, what, group.counted if cells is None else cells, (group.deployment,))


def of_cells(see: Callable[[Run, Cell], str | None]) -> Look:
    """Look at each cell that counts. `see` returns what there is to say of a cell, or nothing. Cells with the
    same words are one case."""

    @functools.wraps(see)
    def look(run: Run) -> Iterator[Case]:
        hits = ((what, cell) for cell in measured_cells(run) if (what := see(run, cell)))
        for what, cells in gathered(hits).items():
            labels = dict.fromkeys(cell.label for cell in cells)
            yield Case(several(list(map(cell_name, cells))), what, cells, tuple(labels))

    return look


def of_groups(see: Callable[[Run, Group], str | None]) -> Look:
    """Look at each deployment at each load. `see` returns what there is to say of a group, or nothing."""

    @functools.wraps(see)
    def look(run: Run) -> Iterator[Case]:
        for group in run.groups:
            if what := see(run, group):
                yield of_group(group, what)

    return look


def measured_cells(run: Run) -> list[Cell]:
    return [cell for cell in run.planned_cells if cell.counts]


def cell_name(cell: Cell) -> str:
    """Return a cell as a finding names it: `vllm awq at 4 users (start 2)`."""
    return f"{cell.label} at {cell.load_label} (start {cell.planned.repeat + 1})"
