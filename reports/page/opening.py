"""The top of the page: the question, what was run in plain words, and whether the run was cut short."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.contracts import Load, SearchTerms
from reports import decision_text
from reports.answer import answer_of
from reports.cells import load_family, load_level
from reports.frames import Run
from reports.marks import mark_html, marks_between, unmarked
from reports.page.markup import Html, join, paragraph, plural, tag


def question(run: Run) -> str:
    """The run's question: what was compared, of which model, on which device."""
    starts = run.record.plan.starts
    deployments = {start.deployment.label: start.deployment for start in starts}.values()
    engines = {d.engine for d in deployments}
    quantizations = {d.quantization for d in deployments if d.quantization != "-"}
    models = " and ".join(dict.fromkeys(d.model for d in deployments if d.model != "-"))
    where = f"for {models} on {device(run)}?" if models else f"on {device(run)}?"
    if len(engines) > 1 and len(quantizations) > 1:
        return f"Which engine, at which quantization, {where}"
    if len(engines) > 1:
        return f"Which engine {where}"
    if len(quantizations) > 1:
        return f"Which quantization {where[:-1]}, served by {next(iter(engines))}?"
    if len(deployments) > 1:
        return f"Which options of {next(iter(engines))} {where}"
    name = next((d.label for d in deployments), "a server")
    return f"How does {name} serve {where.removeprefix('for ')}"


def device(run: Run) -> str:
    """The device in words: the card's name where the run used one, else the processor's."""
    facts = dict(flat(run.record.environment))
    on_card = any(record.memory_kind == "device" for record in run.start_records)
    wanted = ("name",) if on_card else ("cpu_model",)
    for key, value in facts.items():
        is_device = not on_card or any(word in key for word in ("device", "gpu"))
        if key.rpartition(".")[2] in wanted and is_device and value:
            return str(value)
    return "one device" if on_card else "this processor"


def flat(facts: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists with their dotted keys, in order."""
    if isinstance(facts, Mapping):
        items = [(str(key), value) for key, value in facts.items()]
    elif isinstance(facts, list | tuple):
        items = [(str(index), value) for index, value in enumerate(facts)]
    else:
        yield prefix, facts
        return
    for key, value in items:
        yield from flat(value, f"{prefix}.{key}" if prefix else key)


def opening(run: Run) -> Html:
    """The heading block of the page."""
    parts = [tag("h1", question(run)), paragraph(what_was_run(run), "sub")]
    if run.record.stopped_because:
        parts.append(paragraph(f"until ended: {run.record.stopped_because}.", "sub"))
    if cut := _cut(run):
        parts.append(tag("div", tag("b", "This run was cut short. "), cut, class_="cut", role="alert"))
    return join([*parts, _answer(run), unmarked(run)])


def _answer(run: Run) -> Html:
    """What the run says, with the marks of the numbers that it goes by."""
    if decided := decision_text.answer(run):
        marks = mark_html(decision_text.answer_marks(run))
        return paragraph(join([decided, " ", marks]), "answer")
    found = answer_of(run)
    doubts = [each for a, b, metric in found.numbers for each in marks_between(run, a, b, metric)]
    basis = [tag("small", found.basis)] if found.basis else []
    marks = mark_html(list(dict.fromkeys(doubts)))
    return paragraph(join([" ".join(found.sentences), " ", marks, *basis]), "answer")


def what_was_run(run: Run) -> str:
    """Scenario, users, starts, windows and date in one line."""
    cells = run.planned_cells
    scenarios = ", ".join(dict.fromkeys(cell.planned.scenario.label for cell in cells)) or "nothing planned"
    loads = sorted(
        dict.fromkeys(cell.load for cell in cells), key=lambda load: (load_family(load), load_level(load))
    )
    repeats = len({cell.planned.repeat for cell in cells})
    parts = [scenarios]
    if loads:
        parts.append(_searched(run.record.search) if run.record.search else _loads(loads))
        attached = any(record.attached for record in run.start_records)
        blocks = "on a server that was running already" if attached else "each"
        word = "block" if attached else "start"
        parts.append(f"{plural(repeats, word)} {blocks}" + (", interleaved" if repeats > 1 else ""))
        if len(run.start_records) > len(run.record.plan.starts):  # --resume starts a server anew
            parts.append(f"{len(run.start_records)} starts in all, with those of --resume")
        parts.append(f"windows of {', '.join(dict.fromkeys(map(window_bound, loads)))}")
    done = sum(cell.status == "completed" for cell in cells)
    parts.append(f"{done} of {plural(len(cells), 'cell')} measured")
    return " · ".join([*parts, run.record.created_at[:16].replace("T", " ")])


def _searched(terms: SearchTerms) -> str:
    """`searched from 1 to 64 users`."""
    unit = "users" if terms.over == "concurrency" else "conversations begun per second"
    return f"searched from {terms.lowest:g} to {terms.highest:g} {unit}"


def _loads(loads: Sequence[Load]) -> str:
    """`1, 4 users, 2/s poisson`: all loads, users together."""
    users = sorted({load.concurrency or 0 for load in loads if load.kind == "closed"})
    closed = [", ".join(map(str, users)) + (" user" if users == [1] else " users")] if users else []
    return ", ".join([*closed, *dict.fromkeys(load.label for load in loads if load.kind != "closed")])


def window_bound(load: Load) -> str:
    """What ends a load's window: `8 s`, `100 conversations`, `8 s or 100 conversations`."""
    ends = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    if load.conversations is not None:
        ends.append(plural(load.conversations, "conversation"))
    return " or ".join(ends) or "the whole trace"


def _cut(run: Run) -> str | None:
    """What is missing of a run that did not reach its end; None where it did."""
    if run.record.status == "completed":
        return None
    how = {
        "running": "It has no end on record: bench was killed, or is still running.",
        "interrupted": "It was interrupted.",
    }[run.record.status]
    groups = {
        status: [f"{cell.number:03d}" for cell in run.planned_cells if cell.status == status]
        for status in ("in flight", "interrupted", "not measured")
    }
    said = [
        f"{status.capitalize()}: {plural(len(numbers), 'cell')} ({', '.join(numbers)})."
        for status, numbers in groups.items()
        if numbers
    ]
    path = run.path
    return " ".join(
        [how, *said, f"bench run --resume {shlex.quote(str(path))} measures what is missing." if said else ""]
    )
