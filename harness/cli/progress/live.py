"""The panel at the foot of a terminal while a run goes on: what is shown, and how it looks.

Draws a View and keeps nothing; knows no run and no thread (harness/cli/progress/progress.py does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.progress.outlook import Left
from harness.contracts import Load, PlannedCell, PlannedStart
from harness.load.play.arrivals import phases
from harness.load.pulse import Glance, Progress
from harness.plan.plan import load_s
from harness.settings.units import counted, size_text

if TYPE_CHECKING:  # it imports pyarrow, for which `bench fit` need not wait
    from harness.run.watch import Now

BAR_WIDTH = 20
# A bar is left out where no more than so many characters would stand beside it.
LEAST_WORDS = 36
LABEL_WIDTH = 8
# A load process speaks once a second.
_LATE_S = 3.0

Draw = Callable[[], RenderableType]


@dataclass(frozen=True)
class Overall:
    """How far the whole is: `total` None where it has no end that is known; `left` of a run alone, and
    `may_grow` where more repeats may follow."""

    began_s: float
    what: str = "cell"
    done: int = 0
    total: int | None = None
    left: Left | None = None
    may_grow: bool = False


@dataclass(frozen=True)
class Starting:
    """A server is about to be started, or starts; `stage`: the last step of that which its log told; `unfit`:
    why the machine is waited for."""

    start: PlannedStart
    place: str
    since_s: float
    stage: str | None = None
    unfit: str | None = None


@dataclass(frozen=True)
class Measuring:
    """A cell of a server that is ready. `progress` was heard at `heard_s`, `now` read then."""

    start: PlannedStart
    place: str
    since_s: float
    cell: PlannedCell | None = None
    unfit: str | None = None
    progress: Progress | None = None
    now: Now | None = None
    heard_s: float = 0.0


@dataclass(frozen=True)
class SelfTesting:
    """A load of the self-test, by its label."""

    label: str
    progress: Progress | None
    heard_s: float


@dataclass(frozen=True)
class View:
    """All that the panel shows. Instants are of time.monotonic(), in seconds."""

    overall: Overall
    doing: Starting | Measuring | SelfTesting | None = None


def panel(view: View, now_s: float) -> RenderableType:
    """What to draw now: a few lines, each cut to the terminal's width."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=LABEL_WIDTH, style="cyan", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for label, value in _rows(view, now_s):
        grid.add_row(label, value)
    return Group("", grid)


def _rows(view: View, now_s: float) -> Iterator[tuple[str, RenderableType]]:
    doing = view.doing
    yield "run", _overall(view, now_s)
    if isinstance(doing, Starting):
        yield "now", _plain(f"{doing.start.deployment.label}; {doing.place}")
        yield "phase", _plain(_starting(doing, now_s))
    elif isinstance(doing, Measuring):
        load = f", {doing.cell.load.label}" if doing.cell else ""
        yield "now", _plain(f"{doing.start.deployment.label}{load}; {doing.place}")
        yield from _measuring(doing, now_s)
    elif isinstance(doing, SelfTesting):
        yield "now", _plain(doing.label)
        if doing.progress:
            yield "phase", _plain(_phase_name(doing.progress.phase))
            yield from _progress(doing.progress, None)


def _overall(view: View, now_s: float) -> RenderableType:
    overall = view.overall
    after = f"after {clock(now_s - overall.began_s)}"
    if overall.total is None:
        return _plain(f"{counted(overall.done, overall.what)} {after}")
    words = f"{overall.done} of {counted(overall.total, overall.what)} {after}{_left(overall, now_s)}"
    return _Bar((overall.done + _share(view.doing, now_s)) / max(1, overall.total), words)


def _left(overall: Overall, now_s: float) -> str:
    if overall.left is None or overall.done == overall.total:
        return ""
    least = "at least" if overall.left.is_least or overall.may_grow else "about"
    return f", {least} {clock(overall.left.at(now_s))} left"


def _share(doing: Starting | Measuring | SelfTesting | None, now_s: float) -> float:
    """How much of its cell is over, by the time that its load is to take."""
    if not isinstance(doing, Measuring) or doing.cell is None or doing.progress is None:
        return 0.0
    expected_s = max(1.0, load_s(doing.cell.load, doing.cell.scenario))
    return min(1.0, _t_s(doing, doing.progress, now_s) / expected_s)


def _starting(doing: Starting, now_s: float) -> str:
    if doing.unfit:
        return _waiting(doing.unfit, now_s - doing.since_s)
    stage = f", last step: {doing.stage.replace('_', ' ')}" if doing.stage else ""
    return f"starting, {clock(now_s - doing.since_s)}{stage}"


def _waiting(unfit: str, waited_s: float) -> str:
    return f"waiting for a fit machine ({clock(waited_s)}), {unfit}"


def _measuring(doing: Measuring, now_s: float) -> Iterator[tuple[str, RenderableType]]:
    since = clock(now_s - doing.since_s)
    if doing.unfit:
        yield "phase", _plain(_waiting(doing.unfit, now_s - doing.since_s))
    elif doing.cell is None:
        yield "phase", _plain(f"no load, {since}")
    elif doing.progress is None:
        yield "phase", _plain(f"the load begins, {since}")
    else:
        yield "phase", _phase(doing, doing.cell.load, doing.progress, now_s)
        yield from _progress(doing.progress, doing.now)


def _phase(doing: Measuring, load: Load, progress: Progress, now_s: float) -> RenderableType:
    """The phase, and how far it is where its length is known."""
    silent_s = now_s - doing.heard_s
    late = f" (last heard {clock(silent_s)} ago)" if silent_s > _LATE_S else ""
    ends, t_s = phases(load), _t_s(doing, progress, now_s)
    spans = {
        "ramp-up": (0.0, ends.ramp_up_end_s),
        "warmup": (ends.ramp_up_end_s, ends.window_start_s),
        "window": (ends.window_start_s, ends.window_end_s),
        "ramp-down": (ends.window_end_s, ends.end_s),
    }
    begin_s, end_s = spans.get(progress.phase, (inf, inf))
    name = _phase_name(progress.phase)
    if begin_s == inf:
        waits = f", {counted(progress.in_flight, 'request')} to end" if progress.phase == "drain" else ""
        return _plain(f"{name}{waits}{late}")
    passed_s = max(0.0, min(t_s, end_s) - begin_s)
    if end_s == inf:
        return _plain(f"{name}, {clock(passed_s)}{late}")
    length_s = end_s - begin_s
    return _Bar(passed_s / length_s if length_s else 1.0, f"{name}, {passed_s:.0f} of {length_s:g} s{late}")


def _phase_name(phase: str) -> str:
    return "warm-up" if phase == "warmup" else phase


def _t_s(doing: Measuring, progress: Progress, now_s: float) -> float:
    """Where the load is by now, since it spoke."""
    return progress.t_s + min(_LATE_S, max(0.0, now_s - doing.heard_s))


def _progress(progress: Progress, now: Now | None) -> Iterator[tuple[str, RenderableType]]:
    yield "lately", _plain(_lately(progress.recent))
    yield "requests", _plain(_ended(progress))
    if now:
        yield "server", _plain(f"{_under_way(now)}; {_memory(now)}")
    yield (
        "client",
        _plain(f"{progress.in_flight:,} in flight; its loop late by p99 {_time(progress.loop_lag_s)}"),
    )


def _lately(recent: Glance | None) -> str:
    if recent is None or not recent.requests:
        return "no request has ended well" + (f" in the last {recent.length_s:.0f} s" if recent else "")
    if recent.tokens_per_s is not None:
        rate = f"{number(recent.tokens_per_s)} tokens/s"
    else:  # the server tells no count, and a chunk is not a token
        rate = f"{number(recent.chunks_per_s)} chunks/s"
    ttft = f"TTFT p50 {_time(recent.ttft_p50_s)}, p95 {_time(recent.ttft_p95_s)}"
    span = "up to" if recent.is_uneven else "last"
    return f"{rate}; {ttft} ({span} {recent.length_s:.0f} s, n={recent.ttft_n:,})"


def _ended(progress: Progress) -> str:
    kinds = sorted(progress.failures.items(), key=lambda each: -each[1])
    named = f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds)})" if kinds else ""
    return f"{progress.requests:,} ok, {progress.failed:,} failed{named}"


def _under_way(now: Now) -> str:
    if now.running is None:
        return "running and waiting requests not known"
    waiting = "-" if now.waiting is None else f"{now.waiting:,.0f}"
    return f"{now.running:,.0f} running, {waiting} waiting"


def _memory(now: Now) -> str:
    if now.memory_bytes is None or now.memory_of is None:
        return "memory not known"
    return f"memory {size_text(now.memory_bytes)} ({now.memory_of})"


@dataclass(frozen=True)
class _Bar:
    """A bar before its words; the words alone where both do not fit."""

    share: float
    words: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < BAR_WIDTH + LEAST_WORDS:
            yield _plain(self.words)
            return
        bar = ProgressBar(1.0, min(1.0, max(0.0, self.share)), width=BAR_WIDTH)
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(width=BAR_WIDTH)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.add_row(bar, _plain(self.words))
        yield grid


def _plain(words: str) -> Text:
    """Words as they are: what a label, a log or an error holds is no markup, and no control character."""
    return Text(inert(words), no_wrap=True, overflow="ellipsis")


def inert(words: str, keep: str = "") -> str:
    """Without control characters and marks of direction, but for those of `keep`: they could move the cursor
    or turn what stands beside them."""
    return "".join(each if each.isprintable() or each in keep else " " for each in words)


def number(value: float | None) -> str:
    """With three digits, or all before the point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else time_text(seconds)


def time_text(seconds: float) -> str:
    """`4.21 ms`, `842 ms`, `12.3 s`."""
    return f"{number(seconds * 1e3)} ms" if seconds < 1 else f"{number(seconds)} s"


def clock(seconds: float) -> str:
    """`42 s`, `12 min`, `2.1 h`."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
