"""What a start shows: how long each step of its start-up took, and its memory over time.

A step is named by what it ends with: a stage that was seen. What was not seen is part of the next step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.run import Run, once
from reports.data.tables import of_start

STAGES = {
    "process_up": "process up",
    "weights_begin": "programs loaded, weights begin",
    "weights_loaded": "weights loaded",
    "engine_ready": "graphs and KV cache ready",
    "listening": "listening",
    "first_token": "first token",
    "ready": "first good generation",
    "steady_token": "first steady token",
}
FIRST, LATER = "first start", "later starts"


@dataclass(frozen=True)
class Launch:
    """The starts of a deployment that became ready and are like each other: the first, which may have had to
    compile and to read its files, or the later ones. `steps_s`: the mean time from the step before (or the
    spawn) to each stage that all of them have."""

    label: str
    which: str
    records: tuple[StartRecord, ...]
    steps_s: Mapping[str, float]


def launches_of(run: Run) -> list[Launch]:
    """Return each deployment's first start, then its later ones. A first start that never became ready makes
    the next no first one: it may have compiled."""
    found = []
    for label in run.deployments:
        records = run.starts_of(label)
        for which, chosen in ((FIRST, records[:1]), (LATER, records[1:])):
            if ready := tuple(record for record in chosen if record.launch_s is not None):
                means = pd.DataFrame(map(instants_s, ready)).dropna(axis=1).mean().sort_values()
                lengths_s = np.diff(means.to_numpy(), prepend=0.0).tolist()
                steps_s = dict(zip(map(str, means.index), lengths_s, strict=True))
                found.append(Launch(label, which, ready, steps_s))
    return found


def instants_s(record: StartRecord) -> dict[str, float]:
    """Return seconds from the spawn to each stage that was seen, in the order in which they came. The first
    token is the first good generation where it was not seen by itself."""
    stages = dict(record.stages)
    if "first_token" not in stages and record.ready_ns is not None:
        stages["ready"] = record.ready_ns
    spawned_ns = record.spawned_ns
    if spawned_ns is None:
        return {}
    return {name: (at - spawned_ns) / 1e9 for name, at in sorted(stages.items(), key=lambda pair: pair[1])}


def start_title(run: Run, record: StartRecord) -> str:
    """Return a start's number among its deployment's: `2`. Where another start has it too, as after --resume,
    with its directory's number: `2 (08)`."""
    number = str(record.repeat + 1)
    same = [other for other in run.starts_of(record.deployment.label) if other.repeat == record.repeat]
    return number if len(same) < 2 else f"{number} ({record.name.partition('-')[0]})"


# --- memory ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """A server's memory over time: known samples only. `what` says in words whose memory it is;
    `is_attributed`: the server's own, not that of all who use the device."""

    what: str
    t_ns: np.ndarray
    size_bytes: np.ndarray
    is_attributed: bool = True


@once
def memory_over_time(run: Run, start: StartRecord) -> Memory:
    """Return a start's memory, empty where nothing was sampled.

    On a device, the server's own memory where NVML ever attributes it (samples without are left out), else
    all memory in use.
    """
    is_host = start.memory_kind == "host"
    frame = run.host if is_host else run.device
    own = pd.DataFrame() if frame is None else of_start(frame, start.name)
    is_attributed = is_host or not len(own) or bool(own["process_bytes"].notna().any())
    if is_host:
        what, column = "host memory (RSS of the server's process tree)", "rss_bytes"
    elif is_attributed:
        what, column = "device memory of the server's processes", "process_bytes"
    else:
        what, column = "device memory in use (all processes)", "used_bytes"
    known = own.reindex(columns=["t_ns", column]).astype(float)
    if "device" in own and own["device"].nunique() > 1:
        # A server on several devices: the devices' samples of one reading are added.
        reading = own.groupby("device").cumcount()
        known = known.dropna().groupby(reading).agg({"t_ns": "min", column: "sum"})
    known = known.dropna()
    return Memory(what, known["t_ns"].to_numpy(), known[column].to_numpy(), is_attributed)
