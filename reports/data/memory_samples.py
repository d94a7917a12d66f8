"""A server's memory over time, from the samples of its start."""

from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.once import once_for
from reports.data.run import Run
from reports.data.slices import of_start


@dataclass(frozen=True)
class Memory:
    """A server's memory over time: known samples only. `what` says in words whose memory it is;
    `is_attributed`: the server's own, not that of all who use the device."""

    what: str
    t_ns: np.ndarray
    size_bytes: np.ndarray
    is_attributed: bool = True

    @property
    def peak(self) -> int:
        """Index of the highest sample."""
        return int(self.size_bytes.argmax())


@once_for(attrgetter("name"))
def memory_over_time(run: Run, start: StartRecord) -> Memory:
    """A start's memory, empty where nothing was sampled.

    On a device, the server's own memory where NVML ever attributes it (samples without are left out), else
    all memory in use.
    """
    if start.memory_kind == "host":
        what, column, frame = "host memory (RSS of the server's process tree)", "rss_bytes", run.host
    else:
        what, column, frame = "device memory of the server's processes", "process_bytes", run.device
    if frame is None:
        return Memory(what, np.empty(0), np.empty(0))
    own = of_start(frame, start.name)
    is_attributed = True
    if start.memory_kind != "host" and not len(own["process_bytes"].dropna()):
        what, column, is_attributed = "device memory in use (all processes)", "used_bytes", False
    kept = pd.DataFrame({"t_ns": own["t_ns"], "bytes": own[column]})
    if "device" not in own or own["device"].nunique() == 1:
        samples = kept.dropna().astype(float)
    else:
        # A server on several devices: the devices' samples of one reading are added.
        kept["reading"] = own.groupby("device").cumcount()
        samples = kept.dropna().astype(float).groupby("reading").agg({"t_ns": "min", "bytes": "sum"})
    return Memory(what, samples["t_ns"].to_numpy(), samples["bytes"].to_numpy(), is_attributed)
