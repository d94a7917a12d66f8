"""Reasons to distrust starts and their machines: too few, unlike each other, or changing over the run.

Before all: whether bench measured the run itself.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports.checks.finding import Seen, cells_of, check, measured_cells, of_groups
from reports.data import Cell, Group, Run, gathered
from reports.measures import aggregate, are_alike, by_start, flat, number, plural, several, shown
from reports.measures.values import devices_of, power_in, power_of_device
from reports.stats.intervals import STARTS_NEEDED, Estimate
from reports.stats.steadiness import start_drifts


@check(
    "Measured by another tool",
    "{}.",
    "bench run engine=openai engine.base_url=URL measures that server.",
    (),
    marks=True,
    is_at_name=True,
)
def measured_by_another_tool(run: Run) -> Iterator[Seen]:
    if source := run.record.foreign:
        origin = "Latencies count from the sending, under a schedule too"
        said = [source.words, *source.definitions, origin, f"Not in its files: {'; '.join(source.missing)}"]
        yield ". ".join(said), run.planned_cells


# --- starts -----------------------------------------------------------------------------------------


STARTS_DIFFER = 0.2
# What is looked at, and its title.
_NAMES = {"output_tokens_per_s": "output tokens/s", "ttft_s.p50": "TTFT p50"}


@check(
    "Few starts",
    f"Fewer than {STARTS_NEEDED} do not tell luck and drift from the engine, and no verdict is given: {{}}.",
    "repeats=5 or more, on servers that bench starts, can tell a difference of 10 %.",
    (),
    of_requests=True,
)
def single_repeat(run: Run) -> Iterator[Seen]:
    # In a search each start tries other loads, so there they are counted over all loads.
    at = "" if run.record.search is not None else " at {}"
    named = ((cell.label + at.format(cell.load_label), cell) for cell in measured_cells(run))
    for name, cells in gathered(named).items():
        starts = len({cell.planned.repeat for cell in cells})
        if starts < STARTS_NEEDED:
            yield f"{name}: {plural(starts, 'start')}", cells


@check(
    "Starts disagree",
    "{}.",
    "More repeats, and a quiet machine; until=ci:5% repeats until the interval is narrow.",
    can_look=lambda run: run.repeats > 1,
    of_requests=True,
)
@of_groups
def repeats_disagree(run: Run, group: Group) -> str | None:
    said = []
    for name in _NAMES:
        value = aggregate(run, group, name)
        low, high, mean = value.low, value.high, value.mean
        if low is not None and high is not None and mean and high - low > STARTS_DIFFER * mean:
            ends = f"{shown(name, low)} to {shown(name, high)}{' ms' if name.endswith('.p50') else ''}"
            said.append(f"{_NAMES[name]} {ends} ({100 * (high - low) / mean:.0f} % of the mean)")
    return ", ".join(said)


@check(
    "A deployment drifted over the run",
    "From start to start, beside what the others have in common: {}.",
    "A machine that has warmed up and is quiet, and more repeats.",
    can_look=lambda run: run.repeats > 1,
)
def drift_over_run(run: Run) -> Iterator[Seen]:
    # A search chooses its loads, blocks on one server are no starts, repeats of several machines no course.
    is_attached = any(record.attached for record in run.start_records)
    if run.record.search is not None or run.record.nodes or is_attached:
        return
    for metric in _NAMES:
        logs = {label: own for label in run.deployments if (own := _logs(run, label, metric))}
        for labels, drift in start_drifts(logs, run.record.compare.margin_share, tests=len(_NAMES)).items():
            said = f"{' beside '.join(labels)}: {_NAMES[metric]} {drift_words(drift)}"
            yield said + (", which of the two is not known" if labels[1:] else ""), cells_of(run, labels)


def _logs(run: Run, label: str, metric: str) -> dict[int, float]:
    """Return by repeat the mean logarithm of a value over the deployment's loads, each beside its own mean;
    of repeats that have all loads."""
    groups = [group for group in run.groups if group.deployment == label]
    columns = [{k: each.value for k, each in by_start(run, group, metric).items()} for group in groups]
    values = pd.DataFrame(dict(enumerate(columns)), dtype=float)
    logs = values.where(values > 0).map(np.log).dropna(axis="columns", how="all")
    return dict((logs - logs.mean()).dropna().mean(axis="columns"))


def drift_words(drift: Estimate) -> str:
    """Return a mean change of a logarithm in words: `+12.3 % (n = 5 starts, p = 0.0004)`."""
    return f"{100 * math.expm1(drift.mean):+.1f} % (n = {drift.k} starts, p = {drift.p:.1g})"


# --- devices ----------------------------------------------------------------------------------------


# NVML says of no card that has a counter how exact its readings are, and of some that they are of a second.
POWERS_APART = 0.2
_LEAST_WINDOW_S = 5.0


@check(
    "Two accounts of a card's power differ",
    "By its energy counter, which is the one used, and by the readings of its power: {}.",
    "A meter at the card or the plug tells which is right; another driver may count otherwise.",
    ("energy_j_per_output_token",),
    marks=True,
    can_look=lambda run: any(_powers(run, cell) for cell in measured_cells(run)),
)
def powers_differ(run: Run) -> Iterator[Seen]:
    for group in run.groups:
        apart = [
            (device, (pair, cell))
            for cell in group.counted
            for device, pair in _powers(run, cell)
            if max(pair) - min(pair) > POWERS_APART * max(pair)
        ]
        for device, found in gathered(apart).items():
            counter_w, readings_w = np.mean([pair for pair, _ in found], axis=0).tolist()
            watts = f"{number(counter_w)} and {number(readings_w)} W"
            yield f"{group.name}: {watts} (device {device})", [cell for _, cell in found]


def _powers(run: Run, cell: Cell) -> list[tuple[int, tuple[float, float]]]:
    """Return the devices whose energy is by a counter, each with the mean power in the cell's window by that
    and by its readings; none for a short window."""
    start = run.start_of(cell)
    is_long = (cell.window_s or 0.0) >= _LEAST_WINDOW_S
    if start is None or start.memory_kind != "device" or not is_long or power_in(run, cell) is None:
        return []
    found = ((device, power_of_device(run, cell, device)) for device in devices_of(run, cell))
    return [
        (device, (power.by_counter_w, power.by_readings_w))
        for device, power in found
        if power and power.by_counter_w is not None and power.by_readings_w is not None
    ]


# --- machines of a merged run -----------------------------------------------------------------------


# Of another machine's facts those that bear on speed; the rest of them is of the moment.
_FACTS = ("machine.cpu_model", "machine.cores_usable", "machine.memory_bytes", "machine.kernel", "machine.os")
_OF_DEVICES = ("driver", "cuda", "power_limit_w", "sm_clock_max_mhz", "pcie_width_max")


@check(
    "Machines differ",
    "{}. Differences between deployments are taken within a repeat, on one machine; means are over all.",
    "Machines of one kind, or one machine for all repeats.",
    can_look=lambda run: len(run.record.nodes) > 1,
)
def machines_differ(run: Run) -> Iterator[Seen]:
    said = gathered(
        ((key, str(value)), repeat + 1)
        for node in run.record.nodes
        for key, value in flat(node.environment)
        if key in _FACTS or key.rpartition(".")[2] in _OF_DEVICES
        for repeat in node.repeats
    )
    values = gathered((key, (value, repeats)) for (key, value), repeats in said.items())
    for key, each in values.items():
        if not are_alike(key, [value for value, _ in each]):
            name = key.removeprefix("machine.").replace("_", " ")
            yield f"{name} {several([_of(value, repeats) for value, repeats in each])}", ()


def _of(value: str, repeats: list[int]) -> str:
    return f"{value} (repeat {', '.join(map(str, repeats))})"


@check(
    "Nodes lost",
    "{}. What they had measured of it does not count.",
    "Nothing: the repeat was measured again on another node, from its beginning.",
    can_look=lambda run: bool(run.record.nodes),
)
def nodes_lost(run: Run) -> Iterator[Seen]:
    for node in run.record.nodes:
        if node.lost_on:
            repeats = ", ".join(str(repeat + 1) for repeat in node.repeats)
            yield f"repeat {repeats} was begun on {several(node.lost_on)}, which was lost", ()


# --- what another start by the same words would be --------------------------------------------------


@check(
    "Images are named by tags",
    "A tag may name another image by tomorrow: {}.",
    "NAME@sha256:DIGEST, as the page gives it, names the same one wherever it is pulled.",
    (),
    can_look=lambda run: any(each.image for each in run.start_records),
)
def images_by_tag(run: Run) -> Iterator[Seen]:
    found = ((record.image.get("image") or "", record.deployment.label) for record in run.start_records)
    for image, labels in gathered(found).items():
        if image and "@" not in image:
            names = list(dict.fromkeys(labels))
            yield f"{several(names)}: {image}", cells_of(run, names)


@check(
    "Starts of a deployment had other variables",
    "{}.",
    "Resume a run in the shell that began it: such variables change how fast a server is.",
    (),
)
def variables_differ(run: Run) -> Iterator[Seen]:
    for label in run.deployments:
        known = [record.environment for record in run.starts_of(label) if record.argv]
        for name in sorted({name for each in known for name in each}):
            values = list(dict.fromkeys(each.get(name, "unset") for each in known))
            if len(values) > 1:
                yield f"{label}: {name} ({several(values, ', then ')})", cells_of(run, {label})
