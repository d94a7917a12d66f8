"""What a server's memory is made of: parts that add up to what was measured.

Measured: on a device the server's own memory where NVML attributes it, else all in use less what was in use
before; its total is the highest sample. On a host the PSS of the server's processes (a page that several
share counts once), which is read at marks only: at each stage of the start, and at the end of each cell. Its
total is the largest mark. Where PSS cannot be read, RSS.

The parts, in the order in which they are given of the total, each at most what is left of it (what a server
says beyond that is reserved and not yet touched):

    program      what was there when the weights began to be read: the programs and libraries, or the
                 device's context (measured step). Where that stage was not seen: at weights loaded, less the
                 weights (reckoned). Where the stage was seen so late that some of the weights were there,
                 what the parts below leave of the memory after the first answers (reckoned)
    weights      as the server says (said), else from weights begin to weights loaded (measured step), else
                 by the model's shape, else the size of their files, a checkpoint's tokenizer included
                 (reckoned)
    kv_cache     the pool as the server says (said), else its tokens times the model's bytes per token
                 (reckoned)
    graphs       as the server says (said); otherwise they are in workspace
    workspace    as the server says (said), and all that the server took beyond program, weights, KV cache and
                 graphs until its first answers (measured step)
    kv_copies    saved states of conversations beside the KV cache, as the server says (said)
    rest         what is left: growth under load, which nothing explains
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.store.store import StartRecord
from reports.data.cells import grouped, short_load
from reports.data.run import Run, once
from reports.data.starts import Memory, memory_over_time
from reports.data.tables import floats, of_start
from reports.measures.kv_need import Conversations, KvNeed, conversations_of, kv_need, pool_of

Source = Literal["said", "measured step", "reckoned"]
PROGRAM, WEIGHTS, KV_CACHE, KV_COPIES = "program", "weights", "kv_cache", "kv_copies"
GRAPHS, WORKSPACE, REST = "graphs", "workspace", "rest"
# As a person reads them: what a model needs first.
PARTS = (WEIGHTS, KV_CACHE, GRAPHS, WORKSPACE, PROGRAM, KV_COPIES, REST)
# Stages of a start by their phases' names; the first answers are over when a server is `ready`.
_STAGES = ("process_up", "weights_begin", "weights_loaded", "engine_ready", "ready")
# A mark's sample follows it: reading PSS takes about 10 ms per GiB.
_MARK_LIMIT_NS = 10_000_000_000


@dataclass(frozen=True)
class Part:
    """`size_bytes` of the total, and how they are known. `cut_bytes`: what the server says beyond what was
    left of the total."""

    size_bytes: float
    sources: tuple[Source, ...] = ()
    cut_bytes: float = 0.0


@dataclass(frozen=True)
class Anatomy:
    """The memory of one start. `what` says in words what was measured, `how` in few. `measured`: scenario and
    load of each cell that was measured on it, and whether it counts. `before_bytes` was in use before the
    start, by anyone; `left_bytes` more than that after it. `parts` add up to `total_bytes`."""

    record: StartRecord
    what: str
    how: str
    measured: frozenset[tuple[str, str, bool]]
    total_bytes: float
    parts: Mapping[str, Part]
    kv: KvNeed

    @property
    def is_host(self) -> bool:
        return self.record.memory_kind == "host"

    @property
    def before_bytes(self) -> int | None:
        return self.record.baseline_bytes

    @property
    def left_bytes(self) -> int | None:
        before, after = self.record.baseline_bytes, self.record.after_bytes
        return None if before is None or after is None else after - before

    @property
    def kv_needed_bytes(self) -> float | None:
        """Bytes of the KV cache part that the requests needed at once; None where that is not known."""
        if self.kv.needed_bytes is None or KV_CACHE not in self.parts:
            return None
        return min(self.kv.needed_bytes, self.parts[KV_CACHE].size_bytes)

    @property
    def needed_bytes(self) -> float | None:
        """The total with the KV cache that was needed instead of the one that was reserved."""
        if self.kv_needed_bytes is None:
            return None
        return self.total_bytes - self.parts[KV_CACHE].size_bytes + self.kv_needed_bytes


@once
def anatomies(run: Run) -> dict[str, list[Anatomy]]:
    """Return by deployment, in the plan's order, the anatomy of each start whose memory was seen."""
    longest_of = conversations_of(run)
    found = {
        label: [made for record in run.starts_of(label) if (made := _anatomy(run, record, longest_of))]
        for label in run.deployments
    }
    return {label: each for label, each in found.items() if each}


def _anatomy(run: Run, record: StartRecord, longest_of: Mapping[str, Conversations]) -> Anatomy | None:
    memory, how = _levels(run, record)
    stages = {name: size for name in _STAGES if (size := _at(record, memory, name)) is not None}
    total = float(memory.size_bytes.max()) if "ready" in stages else 0.0
    if total <= 0:
        return None
    cells = [cell for cell in run.planned_cells if cell.record and cell.record.start == record.name]
    measured = frozenset((cell.planned.scenario.label, short_load(cell.load), cell.counts) for cell in cells)
    parts, kv = parts_of(record, stages, total), kv_need(run, record, longest_of)
    return Anatomy(record, memory.what, how, measured, total, parts, kv)


# --- what was measured -----------------------------------------------------------------------------


def _levels(run: Run, record: StartRecord) -> tuple[Memory, str]:
    """Return samples of the server's own memory, on a host those at marks, and how a total is taken."""
    memory = memory_over_time(run, record)
    if record.memory_kind != "host":
        if memory.is_attributed or record.baseline_bytes is None:
            return memory, "highest sample"
        own_bytes = np.maximum(memory.size_bytes - record.baseline_bytes, 0.0)
        what = "device memory in use, less what was in use before the start"
        return replace(memory, what=what, size_bytes=own_bytes), "highest sample"
    own = None if run.host is None else of_start(run.host, record.name).dropna(subset=["pss_bytes"])
    if own is None or not len(own):
        return replace(memory, what=f"{memory.what}, as PSS could not be read"), "highest RSS"
    what = "host memory (PSS of the server's process tree, at marks)"
    return Memory(what, floats(own["t_ns"]), floats(own["pss_bytes"])), "PSS at marks"


def _at(record: StartRecord, memory: Memory, name: str) -> float | None:
    """Return the sample that the mark of this name made: the first after it, unless that is a later
    mark's."""
    t_ns = next((phase.t_ns for phase in record.phases if phase.name == name), None)
    at = len(memory.t_ns) if t_ns is None else int(np.searchsorted(memory.t_ns, t_ns))
    if t_ns is None or at == len(memory.t_ns) or memory.t_ns[at] - t_ns > _MARK_LIMIT_NS:
        return None
    # Of a mark in the past (a window's begin) there is no sample; it took none from another.
    live = (phase.t_ns for phase in record.phases if not phase.name.endswith((" window", " drain")))
    is_taken = any(t_ns < other_ns <= memory.t_ns[at] for other_ns in live)
    return None if is_taken else float(memory.size_bytes[at])


# --- the parts -------------------------------------------------------------------------------------


def parts_of(record: StartRecord, stages: Mapping[str, float], total_bytes: float) -> dict[str, Part]:
    """Return the parts of a total, by the rules above: those that are known, and the rest."""
    said = {name: float(size) for name, size in record.memory_said.items()}
    weights, weights_source = _weights(record, stages)
    pool = pool_of(record)
    wanted: list[tuple[str, float | None, Source]] = [
        (WEIGHTS, weights, weights_source),
        (KV_CACHE, pool.size_bytes, "reckoned" if pool.is_reckoned else "said"),
        (GRAPHS, said.get(GRAPHS), "said"),
        (WORKSPACE, said.get(WORKSPACE), "said"),
    ]
    first_bytes = max(stages["ready"], stages.get("engine_ready", 0.0))
    others_bytes = sum(size or 0.0 for _, size, _ in wanted)
    program, source = _program(stages, weights, first_bytes - others_bytes)
    parts, left_bytes = _given([(PROGRAM, program, source), *wanted], {}, total_bytes)
    step = first_bytes - (total_bytes - left_bytes)
    if program is not None and step > 0:  # without a program the step would have it in it
        parts, left_bytes = _given([(WORKSPACE, step, "measured step")], parts, left_bytes)
    parts, left_bytes = _given([(KV_COPIES, said.get(KV_COPIES), "said")], parts, left_bytes)
    return {**parts, REST: Part(left_bytes)}


def _given(
    wanted: Iterable[tuple[str, float | None, Source]], parts: Mapping[str, Part], left_bytes: float
) -> tuple[dict[str, Part], float]:
    """Return the parts with what each of these gets of what is left, in turn, and what is left then."""
    found = dict(parts)
    for name, size, source in wanted:
        if size is not None:
            given, before = min(max(size, 0.0), left_bytes), found.get(name, Part(0.0))
            cut_bytes = before.cut_bytes + max(size - given, 0.0)
            found[name] = Part(before.size_bytes + given, (*before.sources, source), cut_bytes)
            left_bytes -= given
    return found, left_bytes


def _program(
    stages: Mapping[str, float], weights: float | None, left_bytes: float
) -> tuple[float | None, Source]:
    """Return what the program takes, and how that is known; `left_bytes`: what the other parts leave for
    it."""
    least, loaded = stages.get("process_up", 0.0), stages.get("weights_loaded")
    seen = stages.get("weights_begin")
    source: Source = "measured step" if seen is not None else "reckoned"
    if seen is not None:
        # Where weights are read in the 20 ms between two looks at the log, the mark has some of them in it,
        # or nearly all. What is said beyond that was not touched, and leaves the program as it was seen.
        is_late = loaded is not None and loaded - seen < (weights or 0.0) / 2
        has_weights = is_late or seen - left_bytes <= (weights or 0.0)
    elif loaded is not None and weights is not None:
        seen, has_weights = max(least, loaded - weights), True
    else:
        return None, source
    return (left_bytes, "reckoned") if has_weights and least <= left_bytes < seen else (seen, source)


def _weights(record: StartRecord, stages: Mapping[str, float]) -> tuple[float | None, Source]:
    if WEIGHTS in record.memory_said:
        return record.memory_said[WEIGHTS], "said"
    if "weights_begin" in stages and "weights_loaded" in stages:
        return stages["weights_loaded"] - stages["weights_begin"], "measured step"
    size = record.memory_expected.get(WEIGHTS, record.weights.get("size_bytes"))
    return (float(size) if isinstance(size, int | float) else None), "reckoned"


# --- over a deployment's starts --------------------------------------------------------------------


def alike(found: Sequence[Anatomy]) -> tuple[list[Anatomy], list[Anatomy]]:
    """Split a deployment's starts into those on which the same cells were measured, and the others. The same:
    with the most cells that count, then the most starts; a mean over others would be of different loads."""
    kinds = [each.measured for each in found]
    kept = max(kinds, key=lambda kind: (sum(counts for *_, counts in kind), kinds.count(kind)), default=None)
    return [a for a in found if a.measured == kept], [a for a in found if a.measured != kept]


def mean_part(found: Sequence[Anatomy], name: str) -> Part | None:
    """Return a part's means over starts, so that they still add up; None where no start has it. A start
    without it has none of it."""
    if not any(name in each.parts for each in found):
        return None
    known = [each.parts.get(name, Part(0.0)) for each in found]
    size_bytes, cut_bytes = np.mean([(part.size_bytes, part.cut_bytes) for part in known], axis=0).tolist()
    sources = tuple(dict.fromkeys(source for part in known for source in part.sources))
    return Part(size_bytes, sources, cut_bytes)


def mean_size(found: Sequence[Anatomy], name: str) -> float:
    """Return the mean bytes of a part; 0 where no start has it."""
    part = mean_part(found, name)
    return part.size_bytes if part else 0.0


def mean_total(found: Sequence[Anatomy]) -> float:
    """Return the mean bytes in all."""
    return sum(each.total_bytes for each in found) / len(found)


@dataclass(frozen=True)
class Expected:
    """What `bench fit` expected beside what a deployment's starts came to, in bytes (means)."""

    part: str
    expected_bytes: float
    measured_bytes: float
    source: str

    @property
    def error_share(self) -> float:
        return self.expected_bytes / self.measured_bytes - 1.0


def expectations(found: Sequence[Anatomy]) -> list[Expected]:
    """Return weights, KV cache and total of a deployment, where they were both expected and measured. The
    total on a host is what was touched."""
    made: list[Expected] = []
    expected = found[0].record.memory_expected
    for name, title in ((WEIGHTS, "weights"), (KV_CACHE, "KV cache")):
        part = mean_part(found, name)
        # What the model's shape gives is no measurement of it.
        if name in expected and part is not None and "reckoned" not in part.sources and part.size_bytes:
            measured_bytes = part.size_bytes + part.cut_bytes
            made.append(Expected(title, expected[name], measured_bytes, part.sources[0]))
    if {WEIGHTS, KV_CACHE, "overhead"} <= expected.keys():
        whole = expected[WEIGHTS] + expected[KV_CACHE] + expected["overhead"]
        made.append(Expected("total", whole, mean_total(found), found[0].how))
    return made


def shared_reasons(starts: Sequence[StartRecord]) -> list[tuple[list[str], str, list[StartRecord]]]:
    """Return what is missing among starts' samples, why, and of which starts: equal ones once. What a
    server's page lacks is left out, since the section on what servers told says it."""
    notes = [
        (what, why, at)
        for at, record in enumerate(starts)
        for what, why in record.memory_notes.items()
        if not what.startswith("server ")
    ]
    places = grouped(notes, lambda note: note[:2])
    found = grouped(places, lambda key: (key[1], tuple(at for *_, at in places[key])))
    return [
        ([what for what, _ in keys], why, [starts[at] for at in ats]) for (why, ats), keys in found.items()
    ]
