"""The types Check and Finding, and the decorators that make a check of a function.

A finding marks a number only if that number may not be compared: unequal work, failed requests, stand-ins for
kernels, a client error that is large beside the value, or an invalid cell. Other findings are only listed.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reports.data import Cell, Group, Run, gathered
from reports.measures import LATENCIES, several

# Token rates, and energy and cost, which are computed from them.
TOKENS = (
    "output_tokens_per_s",
    "output_tokens_per_s_per_core",
    "energy_j_per_output_token",
    "cost_per_million_output_tokens",
)
RATES = (
    "requests_per_s",
    "goodput_per_s",
    "input_tokens_per_s",
    "batch_tokens_per_s",
    "steps_per_s",
    "answered_per_s",
    *TOKENS,
)
# Durations of a batch, a burst and an agent's task, which depend on the length of answers.
_SPANS = ("makespan_s", "recovery_s", "task_s")
SPEED = (
    *LATENCIES,
    "slo_share",
    "first_answer_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    *_SPANS,
    *RATES,
)
# These count requests whose latencies are within limits, so what affects a latency affects them.
BY_OBJECTIVES = ("slo_share", "goodput_per_s")
# Affected by when a request is sent.
FROM_SENDING = ("ttft_s", "e2e_s", "first_answer_s", "prefill_tokens_per_s", *BY_OBJECTIVES)
# Computed from token counts.
OF_COUNTS = (
    "tpot_s",
    "decode_tokens_per_s",
    "batch_tokens_per_s",
    *BY_OBJECTIVES,
    *TOKENS,
    "cost_per_request",
)
# Affected by the length of answers: with shorter ones, reading prompts takes a larger part of the time.
OF_LENGTHS = ("e2e_s", "slo_share", "cost_per_request", *_SPANS, *RATES)

# Comes before the command of a remedy.
COMMAND = " Here: "

# A case in words, and the cells that it is about. A case without cells marks nothing.
Seen = tuple[str, Iterable[Cell]]
See = Callable[[Run], Iterable[Seen]]


@dataclass(frozen=True)
class Finding:
    """A reason to distrust a run."""

    check: str  # the name of the check
    title: str
    text: str  # what was seen, with up to four cases
    remedy: str  # what to do, with a command for this run if there is one
    cells: tuple[int, ...] = ()  # numbers of the cells that it is about; empty: the whole run
    metrics: tuple[str, ...] = ()  # names of the metrics that it affects; empty: all
    marks: bool = False  # it marks the values of these cells and metrics
    short: str = ""  # `text` with the first case only
    is_at_name: bool = False  # it marks the deployment's name instead of each value

    @property
    def command(self) -> str:
        """The command of its remedy; empty if it has none."""
        return self.remedy.partition(COMMAND)[2]


@dataclass(frozen=True)
class Check:
    """A search for one reason to distrust a run."""

    name: str
    title: str
    find: Callable[[Run], Finding | None]
    can_look: Callable[[Run], object]  # true if the run recorded what the check needs
    of_requests: bool  # it needs only requests, which files of other tools have as well


def check(
    title: str,
    text: str,
    remedy: str | Callable[[Run], str],
    metrics: tuple[str, ...] = SPEED,
    *,
    marks: bool = False,
    is_at_name: bool = False,
    can_look: Callable[[Run], object] = bool,
    of_requests: bool = False,
    command: Callable[[Run], str] = lambda run: "",
) -> Callable[[See], Check]:
    """Make a check of a function that yields its cases in a run.

    The first four cases replace `{}` in `text`. The finding has the function's name. `command`: a command
    that would help this run, shown after the remedy. For the others see Finding and Check.
    """

    def declared(see: See) -> Check:
        def find(run: Run) -> Finding | None:
            seen = list(see(run))
            if not seen:
                return None
            said = text.replace("{}", several([words for words, _ in seen], "; "))
            cells = tuple(sorted({cell.number for _, each in seen for cell in each}))
            short = text.replace("{}", _first(run, seen))
            whole = remedy if isinstance(remedy, str) else remedy(run)
            whole += f"{COMMAND}{helps}" if (helps := command(run)) else ""
            return Finding(
                see.__name__, title, said, whole, cells, metrics, marks and bool(cells), short, is_at_name
            )

        return Check(see.__name__, title, find, can_look, of_requests)

    return declared


def _first(run: Run, seen: Sequence[Seen]) -> str:
    """Return the first case in words, and how many deployments have one.

    `all 3 deployments: 1 start` if they are the same, otherwise `all 3 deployments, such as vllm awq at 4
    users: 1 start`.
    """
    first, begins = seen[0][0], {label: (f"{label} at ", f"{label}: ") for label in run.deployments}
    of = {
        label
        for words, cells in seen
        for label, each in begins.items()
        if words.startswith(each) or any(cell.label == label for cell in cells)
    }
    if len(of) < 2 or not any(first.startswith(each) for each in begins.values()):
        return first
    which = f"{'all ' * (len(of) == len(begins))}{len(of)} deployments".replace("all 2 ", "both ")
    rest = first.partition(": ")[2]
    is_alike = all(words.endswith(f": {rest}") for words, _ in seen)
    return f"{which}: {rest}" if is_alike else f"{which}, such as {first}"


def of_cells(see: Callable[[Run, Cell], str | None]) -> See:
    """Look at each cell that counts. `see` returns what there is to say of a cell, or nothing. Cells with the
    same words are one case."""

    @functools.wraps(see)
    def seen(run: Run) -> Iterator[Seen]:
        said = ((words, cell) for cell in measured_cells(run) if (words := see(run, cell)))
        for words, cells in gathered(said).items():
            yield f"{several(list(map(cell_name, cells)))}: {words}", cells

    return seen


def of_groups(see: Callable[[Run, Group], str | None]) -> See:
    """Look at each deployment at each load. `see` returns what there is to say of a group, or nothing."""

    @functools.wraps(see)
    def seen(run: Run) -> Iterator[Seen]:
        for group in run.groups:
            if words := see(run, group):
                yield f"{group.name}: {words}", group.counted

    return seen


def measured_cells(run: Run) -> list[Cell]:
    return [cell for cell in run.planned_cells if cell.counts]


def cells_of(run: Run, labels: Collection[str]) -> list[Cell]:
    return [cell for cell in run.planned_cells if cell.label in labels]


def cell_name(cell: Cell) -> str:
    """Return a cell as a finding names it: `vllm awq at 4 users (start 2)`."""
    return f"{cell.label} at {cell.load_label} (start {cell.planned.repeat + 1})"
