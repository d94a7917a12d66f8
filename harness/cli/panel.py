"""Draw the panel below a run's lines: progress, time left, who is ahead, and what happens now."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from statistics import median, median_low

from rich.console import Group
from rich.table import Table
from rich.text import Text

from serving_bench.harness.contracts import Load, PlannedCell, PlannedStart, inert, plural
from serving_bench.harness.contracts.timing import LEAST_FOR_MEDIAN
from serving_bench.harness.load.play.arrivals import phases
from serving_bench.harness.load.pulse import Glance, Progress
from serving_bench.harness.plan import plan
from serving_bench.harness.run.budget import Budget
from serving_bench.harness.settings.units import duration_text, number_text

LABEL_WIDTH = 8
BAR_WIDTH = 20
STARTING, WAITING = "starting", "waiting for a fit machine"


class Outlook:
    """Estimates how long the rest of a plan takes, by the steps of this run so far, else as planned."""

    def __init__(self, starts: Iterable[PlannedStart], now_s: float) -> None:
        # The steps that are left, in order: each start by its name, each cell by its number.
        self._left: dict[str | int, PlannedStart | PlannedCell] = {}
        self._launches_s: defaultdict[str, list[float]] = defaultdict(list)
        # The time of each cell, waiting included, over the planned one. It begins with 1.0, the plan's own
        # estimate, since the first wait for a fit machine is the longest.
        self._over_plan = [1.0]
        self._began_s = now_s
        self.add(starts)

    def add(self, starts: Iterable[PlannedStart]) -> None:
        for start in starts:
            self._left[start.name] = start
            self._left |= {cell.number: cell for cell in start.cells}

    def ends(self, key: str | int, now_s: float) -> None:
        """Note that a cell has ended, or that a start is ready."""
        step, took_s = self._left.pop(key, None), now_s - self._began_s
        if isinstance(step, PlannedStart):
            self._launches_s[step.deployment.label].append(took_s)
        elif step:
            self._over_plan.append(took_s / plan.cell_s(step))
        self._began_s = now_s

    def fails(self, start: PlannedStart, now_s: float) -> None:
        self._left.pop(start.name, None)
        for cell in start.cells:
            self._left.pop(cell.number, None)
        self._began_s = now_s

    def left(self, now_s: float) -> tuple[float, bool]:
        """Return the seconds left, and whether that is a lower bound: a start-up time is not known yet."""
        steps, passed_s, over = list(self._left.values()), now_s - self._began_s, median_low(self._over_plan)
        if not steps:
            return 0.0, False
        if isinstance(first := steps[0], PlannedCell) and passed_s > over * plan.cell_s(first):
            # A cell that is already overdue shows how long the others will take.
            over = median([*self._over_plan, passed_s / plan.cell_s(first)])
        expected = [self._expected(step, over) for step in steps]
        passed_s = min(passed_s, expected[0][0])
        return sum(seconds for seconds, _ in expected) - passed_s, any(least for _, least in expected)

    def _expected(self, step: PlannedStart | PlannedCell, over: float) -> tuple[float, bool]:
        if isinstance(step, PlannedCell):
            return plan.cell_s(step) * over, False
        if seen_s := self._launches_s.get(step.deployment.label):
            return median(seen_s), False
        return plan.start_s(step.deployment), not step.deployment.terms.base_url


@dataclass(frozen=True)
class View:
    """What the panel shows: progress in cells, and what happens now. Instants are time.monotonic() seconds.

    `total` is None if it is not known. `detail` is shown after `what` and its duration.
    """

    began_s: float
    done: int = 0
    total: int | None = None
    may_grow: bool = False
    start: PlannedStart | None = None
    since_s: float = 0.0
    what: str = STARTING
    detail: str = ""
    cell: PlannedCell | None = None
    progress: Progress | None = None
    server: str = ""
    repeats: int = 1
    budget: Budget | None = None
    standing: str = ""


def panel(view: View, outlook: Outlook, now_s: float) -> Group:
    """Return what to draw: a few lines, each cut to the terminal's width."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABEL_WIDTH, style="cyan", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for label, words in _rows(view, outlook, now_s):
        grid.add_row(label, Text(inert(words), no_wrap=True, overflow="ellipsis"))
    return Group("", grid)


def _rows(view: View, outlook: Outlook, now_s: float) -> Iterator[tuple[str, str]]:
    yield "run", _overall(view, outlook, now_s)
    if view.standing:
        yield "standing", view.standing
    if view.start is None:
        return
    load = f", {view.cell.load.label}" if view.cell else ""
    yield "now", f"{view.start.deployment.label}{load}; start {view.start.index}"
    if view.cell is None or view.progress is None:
        yield "phase", f"{view.what}, {_clock(now_s - view.since_s)}{view.detail}"
        return
    progress = view.progress
    yield "phase", phase_text(view.cell.load, progress)
    yield "lately", _lately(progress.recent)
    kinds = sorted(progress.failures.items(), key=lambda each: -each[1])
    named = f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds)})" if kinds else ""
    yield "requests", f"{progress.requests:,} ok, {progress.failed:,} failed{named}"
    yield "server", view.server
    yield "client", f"{progress.in_flight:,} in flight; event loop lag p99 {time_text(progress.loop_lag_s)}"


def _overall(view: View, outlook: Outlook, now_s: float) -> str:
    after = f"after {_clock(now_s - view.began_s)}"
    if view.total is None:
        return f"{plural(view.done, 'cell')} {after}"
    filled = round(BAR_WIDTH * view.done / max(1, view.total))
    bar = "━" * filled + "╌" * (BAR_WIDTH - filled)
    return f"{view.done} of {plural(view.total, 'cell')} {after}{left_text(view, outlook, now_s)} {bar}"


def left_text(view: View, outlook: Outlook, now_s: float, between: str = ",") -> str:
    """Return `, about 3 minutes left`; an empty text if nothing is left, or the total is not known."""
    if view.total is None or view.done == view.total:
        return ""
    left_s, is_least = outlook.left(now_s)
    if view.budget and left_s > view.budget.left_s:
        if view.budget.left_s < 1:
            return f"{between} {view.budget.text} is over"
        return f"{between} about {_clock(view.budget.left_s)} left of {view.budget.text}"
    return f"{between} {'at least' if is_least or view.may_grow else 'about'} {_clock(left_s)} left"


def phase_text(load: Load, progress: Progress) -> str:
    """Return what a load is at: `window, 2 of 8 s`, or `window, 31 s` once it is longer than planned."""
    ends, name = phases(load), progress.phase.replace("warmup", "warm-up")
    spans = {
        "ramp-up": (0.0, ends.ramp_up_end_s),
        "warm-up": (ends.ramp_up_end_s, ends.window_start_s),
        "window": (ends.window_start_s, ends.window_end_s),
        "ramp-down": (ends.window_end_s, ends.end_s),
    }
    begin_s, end_s = spans.get(name, (inf, inf))
    if begin_s == inf:
        waits = f", {plural(progress.in_flight, 'request')} to end" if name == "drain" else ""
        return f"{name}{waits}"
    passed_s, length_s = max(0.0, progress.t_s - begin_s), end_s - begin_s
    of = f" of {length_s:g}" if passed_s <= length_s < inf else ""
    return f"{name}, {passed_s:.0f}{of} s"


def _lately(recent: Glance | None) -> str:
    if recent is None or not recent.requests:
        return "no request has succeeded"
    # Some servers report no token counts, and a chunk is not a token.
    rate, unit = recent.tokens_per_s, "tokens/s"
    if rate is None:
        rate, unit = recent.chunks_per_s, "chunks/s"
    percentiles = (("p50", recent.ttft_p50_s), ("p95", recent.ttft_p95_s))
    known_percentiles = [
        f"{name} {time_text(seconds)}" for name, seconds in percentiles if seconds is not None
    ]
    ttft = ", ".join(known_percentiles) or f"p50 needs {LEAST_FOR_MEDIAN} requests"
    return f"{number_text(rate)} {unit}; TTFT {ttft} (last {recent.length_s:.0f} s, n={recent.ttft_n:,})"


def time_text(seconds: float | None) -> str:
    """Return `4.21 ms`, `842 ms` or `12.3 s`."""
    if seconds is None:
        return "-"
    return f"{number_text(seconds * 1e3)} ms" if seconds < 1 else f"{number_text(seconds)} s"


def _clock(seconds: float) -> str:
    return duration_text(max(0, round(seconds)))
