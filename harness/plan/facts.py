"""What a plan must know of its candidates on this machine. cli gathers it, so that planning is pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving_bench.harness.contracts import Adapter, Deployment, ModelFacts, Reason, Weights


@dataclass(frozen=True)
class Facts:
    """What is known of a plan's candidates. Whatever is missing here is not known, or stands in no way.

    `misfits`: why an adapter does not fit weights. `contexts`: the longest of each model, in tokens.
    `device_bytes`: the memory of the smallest device that a deployment would use.
    """

    not_here: Mapping[Deployment, Reason] = field(default_factory=dict)
    unprepared: Mapping[Weights, Reason] = field(default_factory=dict)
    misfits: Mapping[tuple[Adapter, Weights], Reason] = field(default_factory=dict)
    shapes: Mapping[str, ModelFacts] = field(default_factory=dict)
    contexts: Mapping[str, int] = field(default_factory=dict)
    device_bytes: Mapping[Deployment, int] = field(default_factory=dict)


UNKNOWN = Facts()
