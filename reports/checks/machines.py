"""Whether the repeats of a merged run were measured on machines alike."""

from collections.abc import Iterator

from reports.checks.finding import Seen, check
from reports.data import Run, gathered
from reports.measures import flat, several

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
        if len(each) > 1:
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
