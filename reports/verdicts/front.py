"""The front of speed, quality and memory: where each deployment stands in these three."""

from dataclasses import dataclass

from reports.data import Group, Run, once
from reports.measures.over_starts import Aggregate
from reports.measures.quality import quality_of
from reports.verdicts.decisions import SPEED, decisions_of


@dataclass(frozen=True)
class Stand:
    """Where a deployment stands at the load that is told first. `kl_nats` is 0 of a reference, which has no
    `kl_interval`."""

    group: Group
    kl_nats: float
    kl_interval: tuple[float, float] | None
    speed: Aggregate
    memory_bytes: float


@once
def front_of(run: Run) -> list[Stand]:
    """Return where each deployment stands of which all three are known; nothing of fewer than two."""
    found = []
    for made in decisions_of(run)[:1] if quality_of(run) else ():
        for group in made.case.groups:
            quality = quality_of(run)[group.deployment]
            kl, interval = (quality.told.kl_nats, quality.told.interval) if quality.told else (None, None)
            kl = 0.0 if quality.is_reference else kl
            speed, memory = (made.value(run, group, name) for name in (SPEED, "memory_peak_bytes"))
            if speed.mean and memory.mean and kl is not None:
                found.append(Stand(group, kl, interval, speed, memory.mean))
    return found if len(found) > 1 else []
