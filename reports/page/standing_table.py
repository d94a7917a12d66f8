"""The table of the first screen: a row per deployment, best first, with its ratio to the baseline drawn and
written."""

import math
from collections.abc import Mapping, Sequence

from harness.contracts import timing
from reports.data.run import Run
from reports.measures.written import NOTHING
from reports.page import forest
from reports.page.cell_marks import cell_marks
from reports.page.looks import Look, looks, named
from reports.page.marks import mark_html
from reports.page.markup import Html, Of, Row, aggregate_cell, join, table, tag
from reports.stats.family import Verdict
from reports.verdicts.picks import State
from reports.verdicts.searches import CAPACITY
from reports.verdicts.searches import word as word_of_search
from reports.words.costs import over_loads
from reports.words.lineups import Contender, Lineup
from reports.words.verdict_words import heading_of, ratio_text, title_of, word_of

_SPEED, _MEMORY, _ENERGY = "output_tokens_per_s", "memory_peak_bytes", "energy_j_per_output_token"
# What is said at a name of the SLO at the table's load: a fast one that misses it is no choice.
_STATES: Mapping[State | None, tuple[str, str]] = {
    "broken": ("✕ misses the SLO here", "bad"),
    "unclear": ("▲ not clear whether it keeps the SLO", "warn"),
}
# The drawing of a ratio, in px.
_WIDTH, _HEIGHT = 140, 16
_TICKS_AT_MOST = 4
_TICK_APART_PX, _TICK_LENGTH = 26, 3


def standing_table(run: Run, lineup: Lineup) -> Html:
    """Of a load, what it takes to choose: speed, its ratio to the baseline and the verdict, who keeps the
    SLO, latencies, memory and energy, each only where the run has it."""
    columns = [
        column
        for column in (
            *_told(run, lineup),
            _within(run, lineup),
            *_values(run, lineup),
            _memory(run, lineup),
            _value(lineup, _ENERGY, "J per output token"),
        )
        if column is not None
    ]
    found = looks(run)
    rows = [
        Row(
            [_name(run, found[each.label], each), *(cells[place] for _, cells in columns)],
            Of(deployment=each.label),
        )
        for place, each in enumerate(lineup.contenders)
    ]
    return table(["deployment", *(head for head, _ in columns)], rows, "standing", "Standing")


# A column: its head, and its cell of each row.
_Column = tuple[Html | str, Sequence[Html | str]]


def _name(run: Run, look: Look, each: Contender) -> Html:
    said = _STATES.get(each.state)
    state = tag("span", said[0], class_=f"said {said[1]}") if said else ""
    return join([named(look), state, cell_marks(run, each.group) if each.group else ""])


def _values(run: Run, lineup: Lineup) -> list[_Column | None]:
    is_told = lineup.metric == _SPEED
    at = f" {lineup.load}" if lineup.metric == CAPACITY else ""
    speed = None if is_told else _value(lineup, _SPEED, f"output tokens/s{at}")
    return [speed, _latency(lineup, "ttft_s"), _latency(lineup, "tpot_s")]


def _value(lineup: Lineup, name: str, head: Html | str) -> _Column | None:
    """None where no deployment has a value."""
    values = [each.value(name) for each in lineup.contenders]
    if all(value.mean is None for value in values):
        return None
    marks = [mark_html(each.marks(name)) for each in lineup.contenders]
    return head, [aggregate_cell(name, *each) for each in zip(values, marks, strict=True)]


def _latency(lineup: Lineup, metric: str) -> _Column | None:
    """Its p95 where each that has a p50 has one, else the p50 of all."""
    values = [(each.value(f"{metric}.p50"), each.value(f"{metric}.p95")) for each in lineup.contenders]
    has_p95 = all(p95.mean is not None for p50, p95 in values if p50.mean is not None)
    if has_p95:
        return _value(lineup, f"{metric}.p95", heading_of(f"{metric}.p95"))
    why = f"p95 needs {timing.needed(95)} requests of each start or more"
    return _value(lineup, f"{metric}.p50", tag("span", heading_of(f"{metric}.p50"), title=why))


def _memory(run: Run, lineup: Lineup) -> _Column | None:
    """What was needed where that is known of all that were measured, else the peaks."""
    if not lineup.needed:
        return _value(lineup, _MEMORY, "peak memory GiB")
    head = tag(
        "span",
        "memory needed GiB",
        title=f"of a start{over_loads(run)}, less the KV cache that was reserved and not used",
    )
    return head, [aggregate_cell(_MEMORY, lineup.needed_by(each.label)) for each in lineup.contenders]


def _within(run: Run, lineup: Lineup) -> _Column | None:
    """The highest load that keeps the SLO; None without one."""
    if not run.record.slo or any(each.within is None for each in lineup.contenders):
        return None
    unit = {"closed loop": "users", "trace": "speed"}.get(lineup.family, "conversations/s")
    cells = []
    for each in lineup.contenders:
        assert each.within is not None
        shown = tag("span", each.within.words, title=each.within.why)
        is_told = lineup.metric == CAPACITY
        marks = mark_html(each.doubts) if is_told else Html("")
        span = tag("span", each.within.span, class_="range") if each.within.span else Html("")
        cells.append(join([shown, marks, span]))
    return f"{unit} within SLO", cells


# --- against the baseline --------------------------------------------------------------------------


def _told(run: Run, lineup: Lineup) -> list[_Column | None]:
    """The metric of the verdicts, its ratio to the baseline, and the verdict."""
    metric = lineup.metric
    first = None if metric == CAPACITY else _value(lineup, metric, f"{heading_of(metric)} at {lineup.load}")
    verdicts = [each.verdict for each in lineup.contenders]
    if lineup.baseline is None or all(v is None or v.kind == "none" for v in verdicts):
        return [first]
    words = [_word(run, lineup, each) for each in lineup.contenders]
    return [first, _ratios(run, lineup), (tag("span", "verdict", class_="word"), words)]


def _word(run: Run, lineup: Lineup, each: Contender) -> Html | str:
    if each.is_baseline:
        return tag("span", "baseline", class_="word quiet")
    if each.verdict is None:
        return tag("span", NOTHING, class_="word")
    margin = run.record.compare.margin_share
    is_search = lineup.metric == CAPACITY
    word = word_of_search(each.verdict, margin) if is_search else word_of(lineup.metric, each.verdict, margin)
    if each.verdict.kind == "none":
        return tag("span", word, title=each.verdict.why or word, class_="word verdict none", tabindex="0")
    said = tag("span", word, class_=f"word verdict {each.verdict.kind}")
    return said if is_search else join([said, mark_html(each.doubts)])


def _ratios(run: Run, lineup: Lineup) -> _Column:
    """Drawn on one log axis for all, with the same in figures; differences are written only."""
    found = looks(run)
    drawn = [
        forest.Row(found[each.label], "", verdict.ratio, verdict.low, verdict.high, "")
        for each in lineup.contenders
        if (verdict := _telling(each)) and verdict.ratio and verdict.low is not None
        if verdict.high is not None
    ]
    is_log = all(v.is_log for each in lineup.contenders if (v := _telling(each)))
    frame = forest.frame(drawn, 1.05) if drawn and is_log else None
    cells = [_ratio_cell(lineup, each, found[each.label], frame) for each in lineup.contenders]
    of = "" if lineup.metric == _SPEED else f"{_title(lineup.metric)}, "
    if frame is None:
        return f"{of}difference from {lineup.baseline}", cells
    scale = tag("span", ", log scale", class_="scale")
    return join([_axis(frame), f"{of}ratio to {lineup.baseline}", scale]), cells


def _title(metric: str) -> str:
    return "load" if metric == CAPACITY else title_of(metric)


def _telling(each: Contender) -> Verdict | None:
    return each.verdict if each.verdict is not None and each.verdict.kind != "none" else None


def _ratio_cell(lineup: Lineup, each: Contender, look: Look, frame: tuple[float, float] | None) -> Html | str:
    verdict = _telling(each)
    if each.is_baseline and frame:
        return join([_picture(look, None, frame), tag("span", "1", class_="figures")])
    if verdict is None:
        return NOTHING
    metric = _SPEED if lineup.metric == CAPACITY else lineup.metric
    value, _, interval = ratio_text(metric, verdict).partition(" ")
    title = f"{verdict.k} blocks; interval at {100 * verdict.confidence:.4g} %"
    figures = tag("span", value, tag("span", interval, class_="range"), class_="figures", title=title)
    return join([_picture(look, verdict, frame), figures]) if frame else figures


def _picture(look: Look, verdict: Verdict | None, frame: tuple[float, float]) -> Html:
    """A dot with its interval, and 1 as a dotted line; the figures beside it say the same."""
    middle = _HEIGHT / 2
    at = _x(verdict.ratio if verdict and verdict.ratio else 1.0, frame)
    low, high = (
        (_x(end, frame) for end in (verdict.low, verdict.high))
        if verdict and verdict.low is not None and verdict.high is not None
        else (at, at)
    )
    return Html(
        f'<svg class="ratio" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'aria-hidden="true" style="stroke:var({look.colour});fill:var({look.colour})">'
        f'<line class="one" x1="{_x(1.0, frame):.1f}" x2="{_x(1.0, frame):.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}" stroke-width="2"/>'
        f'<circle cx="{at:.1f}" cy="{middle:g}" r="4"/></svg>'
    )


def _x(ratio: float, frame: tuple[float, float]) -> float:
    """Where a ratio stands, in px; one beyond the frame at its edge."""
    low, high = frame
    share = math.log(max(ratio, 1e-9) / low) / math.log(high / low)
    return 5 + (_WIDTH - 10) * min(1.0, max(0.0, share))


def _axis(frame: tuple[float, float]) -> Html:
    """The few ratios that have room, above the drawings."""
    texts = "".join(
        f'<text x="{_x(tick, frame):.1f}" y="11" text-anchor="middle">{tick:g}</text>'
        for tick in _ticks(frame)
    )
    return Html(
        f'<svg class="ratio axis" viewBox="0 0 {_WIDTH} 14" width="{_WIDTH}" height="14" aria-hidden="true">'
        f"{texts}</svg>"
    )


def _ticks(frame: tuple[float, float]) -> list[float]:
    """1, and those of forest.ratio_ticks farthest out that leave room between."""
    taken = [1.0]
    short = [tick for tick in forest.ratio_ticks(*frame) if len(f"{tick:g}") <= _TICK_LENGTH]
    for tick in sorted(short, key=lambda tick: -abs(math.log(tick))):
        places = [_x(other, frame) for other in taken]
        if len(taken) < _TICKS_AT_MOST and all(abs(_x(tick, frame) - x) >= _TICK_APART_PX for x in places):
            taken.append(tick)
    return sorted(taken)
