"""One cell's requests against time: a lane per user, each request with its phases, and below them on the same
axis the requests that the server had and its memory.

Gives the page's script (reports/page/timeline.js) the data of every cell, of each a stretch; it draws the one
that the reader chooses.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd

from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.served import samples_of
from reports.data.starts import Memory, memory_over_time
from reports.measures.written import number, plural
from reports.page.charts import Chart, Section
from reports.page.drawn.lanes import Course, Lanes, in_flight, lanes_of, memory_course, told
from reports.page.looks import looks
from reports.page.markup import Html, Of, details, join, packed_json, paragraph, tag
from reports.page.swatches import swatch
from reports.verdicts.load_cases import told_first

ID = "timeline"
# Of one cell; and of all of them together, so that a page of many cells stays light.
REQUESTS_AT_MOST, POINTS_AT_MOST = 300, 200
ALL_REQUESTS, ALL_POINTS = 12_000, 6_000
_FEWEST = 20
_GIB = 2.0**30
# A request's phases in order: name, colour, pattern.
_PHASES = (
    ("due, not yet sent", "--mut", "/"),
    ("sent, no token yet (queue and prefill)", "--s-2", ""),
    ("first token to end (decoding)", "--s-5", ""),
    ("failed", "--bad", "x"),
)


def section(run: Run) -> Section | None:
    """None where no cell has requests and a window."""
    cells = [cell for group in run.groups for cell in group.cells if cell.window_s and cell.record]
    cells.sort(key=lambda cell: list(run.deployments).index(cell.label))
    count = max(len(cells), 1)
    at_most, points = (
        max(min(each, whole // count), _FEWEST)
        for each, whole in ((REQUESTS_AT_MOST, ALL_REQUESTS), (POINTS_AT_MOST, ALL_POINTS))
    )
    found = [lanes for cell in cells if (lanes := lanes_of(run, cell, at_most))]
    if not found:
        return None
    first = _first(run, found)
    phases = [{"name": name, "colour": colour, "pattern": shape} for name, colour, shape in _PHASES]
    data = {"phases": phases, "cells": list(_data(run, found, points))}
    body = [
        paragraph(_note(at_most, points)),
        tag(
            "p", *(tag("span", swatch(colour, shape), name) for name, colour, shape in _PHASES), class_="key"
        ),
        _choice(run, found, first),
        _figure(),
        Html("<noscript><p>The timeline needs JavaScript.</p></noscript>"),
        packed_json("timeline-data", data),
    ]
    # Its traces come from the script, which has those of every cell.
    place = Chart(ID, "Timeline of one cell", (), {}, (), ())
    return Section("Timeline of one cell", join(body), [place])


def _note(at_most: int, points: int) -> str:
    return (
        "Each bar is a request, in its user's lane (closed loop) or the first lane that is free. In a closed "
        "loop latency counts from when a request was sent: the time from due to sent is no part of it. "
        "Shaded: the window. Running and waiting: as the server says, once a second; where it does not, the "
        f"client's requests in flight. At most {at_most} requests of a cell are drawn, and {points} points "
        "of a line."
    )


def _first(run: Run, found: Sequence[Lanes]) -> int:
    """The first deployment's first start at the load that the first screen is about."""
    decisive = {(case.scenario, case.load) for case in told_first(run)}
    at = (k for k, lanes in enumerate(found) if lanes.cell.key[1:] in decisive)
    return next(at, 0)


# --- the markup ------------------------------------------------------------------------------------


def _choice(run: Run, found: Sequence[Lanes], first: int) -> Html:
    options = [
        tag("option", _name(run, lanes.cell), value=str(k), **_of(lanes.cell).attributes)
        for k, lanes in enumerate(found)
    ]
    select = tag("select", *options, id="timeline-cell", autocomplete="off", data_first=str(first))
    return tag("p", tag("label", "Cell ", for_="timeline-cell"), select, class_="pick", hidden="hidden")


def _of(cell: Cell) -> Of:
    return Of(cell.label, cell.load_label, start=cell.planned.repeat + 1)


def _name(run: Run, cell: Cell) -> str:
    """Deployment, load and start, with what else tells it from other cells."""
    said = [f"{cell.label}, {cell.load_label}, start {cell.planned.repeat + 1}"]
    same = [other for other in run.planned_cells if _of(other) == _of(cell)]
    if len({other.planned.scenario.label for other in same}) > 1:
        said.append(cell.planned.scenario.label)
    if sum(other.key == cell.key for other in same) > 1:
        said.append(f"cell {cell.number:03d}")
    said += [] if cell.counts else [cell.status if cell.status != "completed" else cell.validity]
    return ", ".join(said)


def _figure() -> Html:
    """Empty and hidden until the script draws it."""
    place = tag("div", class_="chart", data_chart="timeline", role="img", aria_label="timeline")
    box = {"class_": "scroll", "tabindex": "0", "role": "region", "aria_label": "Requests of the cell"}
    view = details("Table", tag("div", id="timeline-table", **box))
    title = tag("figcaption", tag("span", "", id="timeline-title"))
    quantity = tag("p", "", id="timeline-quantity", class_="quantity")
    return tag("figure", title, quantity, place, view, id="chart-timeline", hidden="hidden")


# --- the data --------------------------------------------------------------------------------------


def _data(run: Run, found: Sequence[Lanes], points: int) -> Iterator[dict[str, Any]]:
    names = looks(run)
    memory_of = cache(lambda start: _memory(run, start))
    served_of = cache(lambda start: samples_of(run, start))
    for lanes in found:
        cell = lanes.cell
        assert cell.record is not None
        assert cell.window_s is not None
        yield {
            "of": _of(cell).to_builtins(),
            "name": _name(run, cell),
            "colour": names[cell.label].colour,
            "stretch": [_short(lanes.begin_ms), _short(lanes.end_ms)],
            "window_ms": _short(1e3 * cell.window_s),
            "said": _said(lanes),
            "slowest": lanes.slowest,
            "from_due": cell.origin == "scheduled_ns",
            "lane": "user" if lanes.users else "lane",
            "users": [user + 1 for user in lanes.users],
            "requests": _columns(lanes.requests),
            "queue": _queue(run, lanes, served_of(cell.record.start), points),
            "memory": _of_memory(lanes, memory_of(cell.record.start), points),
        }


def _memory(run: Run, start: str) -> Memory | None:
    record = next((record for record in run.start_records if record.name == start), None)
    found = memory_over_time(run, record) if record else None
    return found if found is not None and len(found.t_ns) else None


def _said(lanes: Lanes) -> str:
    """Which requests are drawn, and of which stretch."""
    seconds = number((lanes.end_ms - lanes.begin_ms) / 1e3)
    if lanes.is_whole:
        return f"All {plural(lanes.total, 'request')} of the cell, {seconds} s."
    around = "from the window's begin"
    if lanes.slowest_s is not None:
        around = f"around the slowest first token of the window ({number(1e3 * lanes.slowest_s)} ms)"
    said = f"{len(lanes.requests):,} of {lanes.total:,} requests: {seconds} s {around}"
    word = "users" if lanes.users else "lanes"
    return said + (
        f", {lanes.lanes} of {lanes.all_lanes:,} {word}." if lanes.lanes < lanes.all_lanes else "."
    )


def _columns(requests: pd.DataFrame) -> dict[str, list[Any]]:
    """By column, to be short: ms since the window's begin, then lengths of the phases (null: not reached)."""
    sent, first = requests["sent"], requests["first"]
    lengths = {
        "due": requests["begin"],
        "wait": sent - requests["begin"],
        "prefill": first - sent,
        "decode": requests["end"] - first,
        "end": requests["end"],
    }
    counts = ("number", "lane", "conversation", "turn", "input_tokens", "cached_tokens", "output_tokens")
    return {
        **{name: [_short(value) for value in values] for name, values in lengths.items()},
        **{name: [None if pd.isna(v) else int(v) for v in requests[name]] for name in counts},
        "outcome": [str(outcome) for outcome in requests["outcome"]],
    }


def _queue(run: Run, lanes: Lanes, samples: pd.DataFrame, points: int) -> list[dict[str, Any]]:
    given = {term: told(run, lanes, samples, term, points) for term in ("running", "waiting")}
    known = {name: course for name, course in given.items() if len(course.x_ms)}
    if not known:
        known = {"in flight": in_flight(run, lanes, points)}
    return [{"name": name, **_xy(course, 1.0, 0)} for name, course in known.items()]


def _of_memory(lanes: Lanes, memory: Memory | None, points: int) -> dict[str, Any] | None:
    course = memory_course(lanes, memory, points) if memory else Course()
    if memory is None or not len(course.x_ms):
        return None
    return {"what": memory.what, **_xy(course, 1 / _GIB, 3)}


def _xy(course: Course, scale: float, digits: int) -> dict[str, list[float]]:
    y = (round(float(value) * scale, digits) for value in course.y)
    return {"x": [round(float(x)) for x in course.x_ms], "y": [v if digits else int(v) for v in y]}


def _short(ms: float) -> float | int | None:
    """To a tenth; a whole number without its point."""
    if math.isnan(ms):
        return None
    rounded = round(float(ms), 1)
    return int(rounded) if rounded == int(rounded) else rounded
