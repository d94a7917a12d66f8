"""Choose the nodes of a cluster that can measure a run, and refuse a cluster that is unsafe or too mixed.

Knows no Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from serving_bench.harness.contracts import inert
from serving_bench.harness.errors import UserError

# For any other address of a node, ::1 and 127.0.0.2 too, Ray 2.60 listens on all addresses of the machine.
_LOOPBACK = "127.0.0.1"
# What must be the same on all nodes, or their repeats could not stand in one table.
_ALIKE: Sequence[Literal["bench", "architecture", "devices"]] = ("bench", "architecture", "devices")


@dataclass(frozen=True)
class Node:
    """A raylet. Nodes with the same `boot_id` are one machine, where two repeats would disturb each other."""

    id: str
    address: str
    boot_id: str
    host: str
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        return f"{inert(self.host)} ({self.address}, {self.id[:6]})"


class Facts(TypedDict):
    """What a node says of its machine, bench and Ray; `unfit` says why it cannot measure on the device."""

    boot_id: str
    host: str
    bench: str
    architecture: str
    devices: str
    unfit: str | None
    open_at: list[str]
    asks_for_token: bool


def fit(facts_by_node: Mapping[Node, Facts], device: str, bench: str) -> Sequence[Node]:
    """Return the nodes that can measure on the device, judged by the node.facts of each.

    Raises UserError if strangers could join the cluster, if a node has another version of bench, if nodes
    differ, or if none can measure.
    """
    open_at = sorted({node.address for node in facts_by_node if node.address != _LOOPBACK})
    open_at = open_at or sorted({each for facts in facts_by_node.values() for each in facts["open_at"]})
    if open_at and not all(facts["asks_for_token"] for facts in facts_by_node.values()):
        raise UserError(
            f"--on ray: the cluster listens beyond {_LOOPBACK} ({', '.join(open_at)}) and lets anyone there "
            "run programs; start all its nodes with RAY_AUTH_MODE=token, and set that here"
        )
    for node, facts in facts_by_node.items():
        if facts["bench"] != bench:
            raise UserError(
                f"{node.name} has bench {facts['bench']}, here is {bench}; install the same on all nodes"
            )
    unfit = {node: _why_unfit(node, facts) for node, facts in facts_by_node.items()}
    able = [node for node, why in unfit.items() if not why]
    if device == "auto":  # a node without a card would measure on its processor
        able = [node for node in able if facts_by_node[node]["devices"]] or able
    if not able:
        reasons = "; ".join(f"{node.name}: {why}" for node, why in unfit.items())
        raise UserError(f"device={device}: no node of the cluster has it: {reasons}")
    for key in _ALIKE:
        first_of = dict[str, Node]()
        for node in able:
            first_of.setdefault(facts_by_node[node][key], node)
        if len(first_of) > 1:
            unlike = [f"{value or 'none'} on {node.name}" for value, node in first_of.items()]
            raise UserError(
                f"--on ray: nodes differ: {key} {', '.join(unlike[:2])}; give a cluster of equal nodes"
            )
    return able


def _why_unfit(node: Node, facts: Facts) -> str | None:
    # With --num-cpus=0, as often on the head, a node says that nothing should run on it.
    return facts["unfit"] or (None if node.cpus else "it offers no processor (--num-cpus=0)")
