"""What a check is and what it finds, and how it names cells.

A finding marks a number only where that number may not be compared: unequal work, failed requests, stand-ins
for kernels, the client's own error large beside the value, an invalid cell. All other findings are listed
without a mark.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reports.data import Cell, Group, Run, gathered
from reports.measures import LATENCIES, several

# What the client sees of a server's speed; energy and cost are computed from tokens/s.
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
# Of a batch, a burst and an agent's task: each lasts as long as its answers.
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
# What counts requests whose latencies are within limits: whatever bears on a latency bears on these.
BY_OBJECTIVES = ("slo_share", "goodput_per_s")
# What begins with a request's sending.
FROM_SENDING = ("ttft_s", "e2e_s", "first_answer_s", "prefill_tokens_per_s", *BY_OBJECTIVES)
# What is computed from how many tokens were counted.
OF_COUNTS = (
    "tpot_s",
    "decode_tokens_per_s",
    "batch_tokens_per_s",
    *BY_OBJECTIVES,
    *TOKENS,
    "cost_per_request",
)
# What depends on how long answers are: of shorter ones a greater part of the time is the reading of prompts.
OF_LENGTHS = ("e2e_s", "slo_share", "cost_per_request", *_SPANS, *RATES)

# Stands before the command of a remedy.
COMMAND = " Here: "

# A case in words, and the cells that it is about; one without cells marks nothing.
Seen = tuple[str, Iterable[Cell]]
See = Callable[[Run], Iterable[Seen]]


@dataclass(frozen=True)
class Finding:
    """A reason to distrust: `text` says what was seen, `short` the first of it, `remedy` what would help.

    `cells`: numbers of the cells that it is about; empty: the whole run. `metrics`: names of the metrics that
    it bears on; empty: all. With `marks` a number of such a cell and metric bears this finding's mark; where
    it holds for all that a deployment did, the deployment's name does (`is_at_name`), and not each number.
    """

    check: str
    title: str
    text: str
    remedy: str
    cells: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()
    marks: bool = False
    short: str = ""
    is_at_name: bool = False

    @property
    def command(self) -> str:
        """The command of its remedy; nothing where it has none."""
        return self.remedy.partition(COMMAND)[2]


@dataclass(frozen=True)
class Check:
    """A reason to distrust, the function that looks for it, whether a run recorded what it needs, and whether
    requests alone tell it, which files of other tools have as well."""

    name: str
    title: str
    find: Callable[[Run], Finding | None]
    can_look: Callable[[Run], object]
    of_requests: bool


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
    """Make a check of a function that yields its cases in a run, of which `{}` in the text stands for the
    first four. The finding has the function's name. `can_look`: whether a run has what is looked at.
    `of_requests`: whether requests alone tell it. `command`: what would help this run, behind the remedy."""

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
    """Return the first case in words, and how many deployments have one: `all 3 deployments: 1 start`, or
    where they are not alike `all 3 deployments, as vllm awq at 4 users: 1 start`."""
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
    return f"{which}: {rest}" if is_alike else f"{which}, as {first}"


def of_cells(see: Callable[[Run, Cell], str | None]) -> See:
    """Look at each cell whose values count; `see` returns what there is to say of it, if anything. Cells of
    which there is the same to say are one case."""

    @functools.wraps(see)
    def seen(run: Run) -> Iterator[Seen]:
        said = ((words, cell) for cell in measured_cells(run) if (words := see(run, cell)))
        for words, cells in gathered(said).items():
            yield f"{several(list(map(cell_name, cells)))}: {words}", cells

    return seen


def of_groups(see: Callable[[Run, Group], str | None]) -> See:
    """Look at each deployment at each load, over its starts that count."""

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
