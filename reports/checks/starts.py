"""Reasons to distrust starts and their machines: too few, unlike each other, or changing over the run.

The first check is whether bench measured the run itself.
"""

import math
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from serving_bench.reports.checks.finding import (
    Case,
    check,
    measured_cells,
    of_deployments,
    of_group,
    of_groups,
)
from serving_bench.reports.data import Cell, Group, Run, gathered, grouped
from serving_bench.reports.measures import (
    aggregate,
    are_alike,
    by_start,
    flat,
    number,
    plural,
    several,
    shown,
)
from serving_bench.reports.measures.values import devices_of, power_in, power_of_device
from serving_bench.reports.stats.intervals import STARTS_NEEDED, Estimate
from serving_bench.reports.stats.starts import levels_of_starts
from serving_bench.reports.stats.steadiness import start_drifts


@check(
    "Measured by another tool",
    "{}.",
    "Use bench run engine=openai engine.base_url=URL to measure that server.",
    (),
    marks=True,
    is_at_name=True,
)
def measured_by_another_tool(run: Run) -> Iterator[Case]:
    if source := run.record.foreign:
        origin = "Latencies count from the send, even in an open loop"
        missing = f"Not in its files: {'; '.join(source.missing)}"
        whole = ". ".join([str(run.foreign), *source.definitions, origin, missing])
        yield Case("", whole, run.planned_cells, brief=str(run.foreign))


# --- starts -----------------------------------------------------------------------------------------


STARTS_DIFFER = 0.2
# The metrics that the checks compare, with their titles.
_NAMES = {"output_tokens_per_s": "output tokens/s", "ttft_s.p50": "TTFT p50"}


@check(
    "Few starts",
    f"Fewer than {STARTS_NEEDED} cannot tell the engine from luck and drift, so there is no verdict: {{}}.",
    "Use repeats=5 or more with servers that bench starts; they can show a difference of 10 %.",
    (),
    of_requests=True,
)
def single_repeat(run: Run) -> Iterator[Case]:
    # In a search each start tries different loads, so starts are counted over all loads.
    at = "" if run.record.search is not None else " at {}"
    # Who left a race is not short of starts; the answer says why it left.
    left = {each.label for each in run.record.plan.race.left} if run.record.plan.race else set()
    measured = (cell for cell in measured_cells(run) if cell.label not in left)
    named = ((cell.label + at.format(cell.load_label), cell) for cell in measured)
    for name, cells in gathered(named).items():
        starts = len({cell.planned.repeat for cell in cells})
        if starts < STARTS_NEEDED:
            yield Case(name, plural(starts, "start"), cells, (cells[0].label,))


@check(
    "Starts disagree",
    f"Their values differ by more than {100 * STARTS_DIFFER:.0f} % of the mean: {{}}.",
    "Use more repeats and a quiet machine; until=ci:5% repeats until the interval is narrow.",
    can_look=lambda run: run.repeats > 1,
    of_requests=True,
)
@of_groups
def repeats_disagree(run: Run, group: Group) -> str | None:
    differences = []
    for name in _NAMES:
        value = aggregate(run, group, name)
        low, high, mean = value.low, value.high, value.mean
        if low is not None and high is not None and mean and high - low > STARTS_DIFFER * mean:
            ends = f"{shown(name, low)} to {shown(name, high)}{' ms' if name.endswith('.p50') else ''}"
            differences.append(f"{_NAMES[name]} {ends} ({100 * (high - low) / mean:.0f} % of the mean)")
    return ", ".join(differences)


@check(
    "Starts have two levels",
    "Some start slow or fast by more than noise explains: {}. No smaller lead is named.",
    "Find what differs between starts (memory, cores, clocks); the servers' logs and facts may say it.",
    can_look=lambda run: run.repeats > 1,
    of_requests=True,
)
def two_levels(run: Run) -> Iterator[Case]:
    for (_, load, _), groups in grouped(run.groups, lambda g: (g.scenario, g.load, g.model)).items():
        starts = [by_start(run, group, "output_tokens_per_s") for group in groups]
        if apart := levels_of_starts([{k: v.value or 0.0 for k, v in own.items()} for own in starts]):
            what = f"output tokens/s are {100 * math.expm1(apart):.0f} % apart"
            yield Case(load, what, of=tuple(group.deployment for group in groups))


@check(
    "A deployment drifted over the run",
    "Values changed steadily from start to start, relative to any other deployments: {}.",
    "Warm the machine up, keep it quiet, and use more repeats.",
    can_look=lambda run: run.repeats > 1,
)
def drift_over_run(run: Run) -> Iterator[Case]:
    # A search chooses its loads, blocks are no starts, and repeats on several machines have no order in time.
    is_attached = any(record.attached for record in run.start_records)
    if run.record.search is not None or run.record.nodes or is_attached:
        return
    for metric in _NAMES:
        logs = {label: log_rates for label in run.deployments if (log_rates := _logs(run, label, metric))}
        for labels, drift in start_drifts(logs, run.record.compare.margin_share, tests=len(_NAMES)).items():
            either = ", and either may have drifted" if labels[1:] else ""
            what = f"{_NAMES[metric]} {drift_words(drift)}{either}"
            yield of_deployments(run, labels, what, " against ".join(labels))


def _logs(run: Run, label: str, metric: str) -> dict[int, float]:
    """Return the mean logarithm of a value over the deployment's loads, by repeat.

    Each load is relative to its own mean over the repeats. Only repeats that have all loads are included.
    """
    groups = [group for group in run.groups if group.deployment == label]
    columns = [{k: each.value for k, each in by_start(run, group, metric).items()} for group in groups]
    values = pd.DataFrame(dict(enumerate(columns)), dtype=float)
    logs = values.where(values > 0).map(np.log).dropna(axis="columns", how="all")
    return dict((logs - logs.mean()).dropna().mean(axis="columns"))


def drift_words(drift: Estimate) -> str:
    """Return a mean change of a logarithm as text: `+12.3 % (n = 5 starts, p = 0.0004)`."""
    return f"{100 * math.expm1(drift.mean):+.1f} % (n = {drift.k} starts, p = {drift.p:.1g})"


# --- devices ----------------------------------------------------------------------------------------


# NVML states no accuracy of the power readings of cards with a counter; on some they are means over a second.
POWERS_APART = 0.2
_LEAST_WINDOW_S = 5.0


@check(
    "A card's energy counter and power readings disagree",
    f"The counter, which is used, and the readings are over {100 * POWERS_APART:.0f} % apart: {{}}.",
    "Check with a meter at the card or the plug; another driver may count differently.",
    ("energy_j_per_output_token",),
    marks=True,
    can_look=lambda run: any(_powers(run, cell) for cell in measured_cells(run)),
)
def powers_differ(run: Run) -> Iterator[Case]:
    for group in run.groups:
        apart = [
            (device, (pair, cell))
            for cell in group.counted
            for device, pair in _powers(run, cell)
            if max(pair) - min(pair) > POWERS_APART * max(pair)
        ]
        for device, apart_powers in gathered(apart).items():
            counter_w, readings_w = np.mean([pair for pair, _ in apart_powers], axis=0).tolist()
            watts = f"{number(counter_w)} and {number(readings_w)} W"
            yield of_group(group, f"{watts} (device {device})", [cell for _, cell in apart_powers])


def _powers(run: Run, cell: Cell) -> list[tuple[int, tuple[float, float]]]:
    """Return the devices with an energy counter, each with the mean power (W) in the cell's window by the
    counter and by the readings; none for a short window."""
    start = run.start_of(cell)
    is_long = (cell.window_s or 0.0) >= _LEAST_WINDOW_S
    if start is None or start.memory_kind != "device" or not is_long or power_in(run, cell) is None:
        return []
    powers = ((device, power_of_device(run, cell, device)) for device in devices_of(run, cell))
    return [
        (device, (power.by_counter_w, power.by_readings_w))
        for device, power in powers
        if power and power.by_counter_w is not None and power.by_readings_w is not None
    ]


# --- machines of a merged run -----------------------------------------------------------------------


# The facts of a machine that affect speed. Others change from moment to moment.
_FACTS = ("machine.cpu_model", "machine.cores_usable", "machine.memory_bytes", "machine.kernel", "machine.os")
_OF_DEVICES = ("driver", "cuda", "power_limit_w", "sm_clock_max_mhz", "pcie_width_max")


@check(
    "Machines differ",
    "Deployments are compared within a repeat, on one machine, but means are over machines that differ: {}.",
    "Use machines of one kind, or one machine for all repeats.",
    can_look=lambda run: len(run.record.nodes) > 1,
)
def machines_differ(run: Run) -> Iterator[Case]:
    by_machine = gathered(
        ((key, str(value)), repeat + 1)
        for node in run.record.nodes
        for key, value in flat(node.environment)
        if key in _FACTS or key.rpartition(".")[2] in _OF_DEVICES
        for repeat in node.repeats
    )
    values = gathered((key, (value, repeats)) for (key, value), repeats in by_machine.items())
    for key, each in values.items():
        if not are_alike(key, [value for value, _ in each]):
            name = key.removeprefix("machine.").replace("_", " ")
            yield Case("", f"{name} {several([_of(value, repeats) for value, repeats in each])}")


def _of(value: str, repeats: list[int]) -> str:
    return f"{value} (repeat{'s' * (len(repeats) > 1)} {', '.join(map(str, repeats))})"


@check(
    "Nodes lost",
    "{}. What was measured there does not count.",
    "Nothing to do: the repeat was measured again on another node, from its beginning.",
    can_look=lambda run: bool(run.record.nodes),
)
def nodes_lost(run: Run) -> Iterator[Case]:
    for node in run.record.nodes:
        if node.lost_on:
            repeats = ", ".join(str(repeat + 1) for repeat in node.repeats)
            begun = f"repeats {repeats} were" if node.repeats[1:] else f"repeat {repeats} was"
            yield Case("", f"{begun} begun on {several(node.lost_on)}, which was lost")


# --- what the same settings would start another time ------------------------------------------------


@check(
    "Images are given by tag",
    "A tag may stand for another image later: {}.",
    "Use NAME@sha256:DIGEST, which the page gives, to get the same image everywhere.",
    (),
    can_look=lambda run: any(each.image for each in run.start_records),
)
def images_by_tag(run: Run) -> Iterator[Case]:
    images = ((record.image.get("image") or "", record.deployment.label) for record in run.start_records)
    for image, labels in gathered(images).items():
        if image and "@" not in image:
            yield of_deployments(run, dict.fromkeys(labels), image)


# bench gives each start a port of its own.
_OWN_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")


@check(
    "Starts of a deployment had different environment variables",
    "They may have changed the server's speed: {}.",
    "Resume a run in the shell that began it.",
    (),
)
def variables_differ(run: Run) -> Iterator[Case]:
    for label in run.deployments:
        environments = [record.environment for record in run.starts_of(label) if record.argv]
        for name in sorted({name for each in environments for name in each}):
            values = list(
                dict.fromkeys(_OWN_PORT.sub("PORT", each.get(name, "unset")) for each in environments)
            )
            if len(values) > 1:
                yield of_deployments(run, [label], f"{name} ({several(values, ', then ')})")
