"""Split a server's memory into parts that add up to what was measured.

The total. On a device it is the highest sample of the server's own memory if NVML attributes it, otherwise of
all memory in use less what was in use before the start. On a host it is the largest PSS of the server's
processes (a page that several share counts once), which is read only at marks: each stage of the start, and
the end of each cell. If PSS cannot be read, RSS takes its place.

The parts. They are subtracted from the total in this order, each limited to what is left; what a server says
beyond that is reserved and not yet touched.

    program      the memory when the weights began to be read: programs and libraries, or the device's context
                 (measured step). If that stage was not seen: the memory at weights loaded, less the weights
                 (computed). If it was seen so late that some weights were already there: the memory after
                 the first answers, less the parts below (computed)
    weights      as the server says (said), else from weights begin to weights loaded (measured step), else
                 by the model's shape, else the size of the files with a checkpoint's tokenizer (computed)
    kv_cache     the pool as the server says (said), else its tokens times the model's bytes per token
                 (computed)
    graphs       as the server says (said); otherwise they are in workspace
    workspace    as the server says (said), and all memory beyond program, weights, KV cache and graphs that
                 the server took until its first answers (measured step)
    kv_copies    saved states of conversations beside the KV cache, as the server says (said)
    rest         what is left: growth under load that nothing explains

What requests needed of the KV cache. A request holds its prompt from the moment it was sent to its end. Its
answer is added token by token, evenly from the first content chunk to the last. A prefix that requests share
counts for each of them. Only cells that count are included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from serving_bench.reports.data import (
    Cell,
    Memory,
    Run,
    StartRecord,
    floats,
    gathered,
    memory_over_time,
    once,
    phase_of,
)

Source = Literal["said", "measured step", "computed"]
PROGRAM, WEIGHTS, KV_CACHE, KV_COPIES = "program", "weights", "kv_cache", "kv_copies"
GRAPHS, WORKSPACE, REST = "graphs", "workspace", "rest"
# In the order in which a person reads them: what a model needs comes first.
PARTS = (WEIGHTS, KV_CACHE, GRAPHS, WORKSPACE, PROGRAM, KV_COPIES, REST)
# The phases that mark a start's stages. At `ready` the first answers are over.
_STAGES = ("process_up", "weights_begin", "weights_loaded", "engine_ready", "ready")
# A mark's sample comes this much later at most: reading PSS takes about 10 ms per GiB.
_MARK_LIMIT_NS = 10_000_000_000
# What has to be known of a request to count what it held.
HELD_COLUMNS = ["sent_ns", "first_content_ns", "last_content_ns", "end_ns", "input_tokens", "output_tokens"]


@dataclass(frozen=True)
class Part:
    """One part of a server's memory. `sources`: how its size is known."""

    size_bytes: float
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class KvCache:
    """A start's KV cache. None is not known."""

    size_bytes: float | None  # the pool as the server says, or computed from its tokens
    tokens: int | None  # the pool's, as the server says
    is_computed: bool = False
    peak_tokens: float | None = None  # the most that requests held at once in any window
    needed_bytes: float | None = None  # what these take
    users: int | None = None  # how many of the run's long conversations (95th percentile) the pool holds


@dataclass(frozen=True)
class Anatomy:
    """The memory of one start. `what`: what was measured, in words. `loads`: the scenario and load of each
    cell of the start that counts. `parts` add up to `total_bytes`."""

    record: StartRecord
    what: str
    loads: frozenset[tuple[str, str]]
    total_bytes: float
    parts: Mapping[str, Part]
    kv: KvCache

    @property
    def spare_bytes(self) -> float | None:
        """The bytes of the KV cache part that no request needed; None if not known."""
        part, needed = self.parts.get(KV_CACHE), self.kv.needed_bytes
        return None if part is None or needed is None else max(part.size_bytes - needed, 0.0)

    @property
    def pieces(self) -> dict[str, float]:
        """The bytes of a bar's pieces, which add up to the total; 0 for a piece that is not there."""
        size = {name: self.parts[name].size_bytes if name in self.parts else 0.0 for name in PARTS}
        spare = self.spare_bytes
        return {
            "weights": size[WEIGHTS],
            "KV cache that requests held": 0.0 if spare is None else size[KV_CACHE] - spare,
            "KV cache": size[KV_CACHE] if spare is None else 0.0,
            "graphs and workspace": size[GRAPHS] + size[WORKSPACE],
            "program": size[PROGRAM],
            "KV copies": size[KV_COPIES],
            "the rest": size[REST],
            "KV cache reserved, not needed": spare or 0.0,
        }


@once
def anatomies(run: Run) -> dict[str, list[Anatomy]]:
    """Return the anatomy of each start whose memory was sampled, by deployment in the plan's order."""
    return gathered(
        (label, anatomy)
        for label in run.deployments
        for record in run.starts_of(label)
        if (anatomy := _anatomy(run, record))
    )


def _anatomy(run: Run, record: StartRecord) -> Anatomy | None:
    memory = _levels(run, record)
    stages = {name: size for name in _STAGES if (size := _at(run, record, memory, name)) is not None}
    total = float(memory.size_bytes.max()) if "ready" in stages else 0.0
    if total <= 0:
        return None
    return Anatomy(
        record,
        memory.what,
        frozenset(cell.key[1:] for cell in run.counted_on(record)),
        total,
        parts_of(record, stages, total),
        kv_cache_of(run, record),
    )


# --- what was measured -----------------------------------------------------------------------------


def _levels(run: Run, record: StartRecord) -> Memory:
    memory = memory_over_time(run, record)
    if record.memory_kind != "host":
        if memory.is_attributed or record.baseline_bytes is None:
            return memory
        return replace(
            memory,
            what="device memory in use, less what was in use before the start",
            size_bytes=(memory.size_bytes - record.baseline_bytes).clip(0.0),
        )
    samples = run.start_samples("host", record.name).reindex(columns=["t_ns", "pss_bytes"]).dropna()
    if not len(samples):
        return replace(memory, what=f"{memory.what}, as PSS could not be read")
    return Memory(
        "host memory (PSS of the server's process tree, at marks)",
        floats(samples["t_ns"]),
        floats(samples["pss_bytes"]),
    )


def _at(run: Run, record: StartRecord, memory: Memory, name: str) -> float | None:
    """Return the sample of the mark with this name: the first one after it, unless that is a later mark's."""
    t_ns = next((phase.t_ns for phase in record.phases if phase.name == name), None)
    at = len(memory.t_ns) if t_ns is None else int(np.searchsorted(memory.t_ns, t_ns))
    if t_ns is None or at == len(memory.t_ns) or memory.t_ns[at] - t_ns > _MARK_LIMIT_NS:
        return None
    # Windows and drains are marked afterwards, without a sample.
    later = {phase_of(each.number, name) for each in run.planned_cells for name in ("window", "drain")}
    live = (phase.t_ns for phase in record.phases if phase.name not in later)
    return None if any(t_ns < ns <= memory.t_ns[at] for ns in live) else float(memory.size_bytes[at])


# --- the parts -------------------------------------------------------------------------------------


def parts_of(record: StartRecord, stages: Mapping[str, float], total_bytes: float) -> dict[str, Part]:
    """Return the parts that are known by the rules above, and the rest. `stages`: bytes at each stage."""
    figures, pool = record.memory_said, pool_of(record)
    weights, weights_source = _weights(record, stages)
    wanted: list[tuple[str, float | None, Source]] = [
        (WEIGHTS, weights, weights_source),
        (KV_CACHE, pool.size_bytes, "computed" if pool.is_computed else "said"),
        (GRAPHS, figures.get(GRAPHS), "said"),
        (WORKSPACE, figures.get(WORKSPACE), "said"),
    ]
    first_bytes = max(stages["ready"], stages.get("engine_ready", 0.0))
    program, source = _program(stages, weights, first_bytes - sum(size or 0.0 for _, size, _ in wanted))
    parts: dict[str, Part] = {}

    def given_bytes() -> float:
        return sum(part.size_bytes for part in parts.values())

    def give(name: str, size: float | None, source: Source) -> None:
        if size is not None:
            before = parts.get(name, Part(0.0))
            given = min(max(float(size), 0.0), total_bytes - given_bytes())
            parts[name] = Part(before.size_bytes + given, (*before.sources, source))

    give(PROGRAM, program, source)
    for each in wanted:
        give(*each)
    step = first_bytes - given_bytes()
    if program is not None and step > 0:  # otherwise the step would include the program
        give(WORKSPACE, step, "measured step")
    give(KV_COPIES, figures.get(KV_COPIES), "said")
    return {**parts, REST: Part(total_bytes - given_bytes())}


def _program(
    stages: Mapping[str, float], weights: float | None, left_bytes: float
) -> tuple[float | None, Source]:
    """Return the program's bytes and how they are known. `left_bytes`: what the other parts leave for it."""
    least, loaded = stages.get("process_up", 0.0), stages.get("weights_loaded")
    seen = stages.get("weights_begin")
    if seen is not None:
        # If the weights are read in the 20 ms between two looks at the log, the mark includes most of them.
        source: Source = "measured step"
        is_late = loaded is not None and loaded - seen < (weights or 0.0) / 2
    elif loaded is not None and weights is not None:
        seen, source, is_late = max(least, loaded - weights), "computed", True
    else:
        return None, "computed"
    return (left_bytes, "computed") if is_late and least <= left_bytes < seen else (seen, source)


def _weights(record: StartRecord, stages: Mapping[str, float]) -> tuple[float | None, Source]:
    if WEIGHTS in record.memory_said:
        return record.memory_said[WEIGHTS], "said"
    if "weights_begin" in stages and "weights_loaded" in stages:
        return stages["weights_loaded"] - stages["weights_begin"], "measured step"
    size = record.memory_expected.get(WEIGHTS, record.weights.get("size_bytes"))
    return (float(size) if isinstance(size, int | float) else None), "computed"


# --- the KV cache ----------------------------------------------------------------------------------


def kv_cache_of(run: Run, record: StartRecord) -> KvCache:
    """Return a start's pool, and what its requests needed of it.

    A token takes what the model's shape gives. With sliding windows that is more than the pool's average,
    since the windows are not full yet; the need is limited to the pool.
    """
    pool, long_tokens = pool_of(record), long_conversation(run)
    cells = [(_known(run, cell), cell.window_ns) for cell in run.counted_on(record)]
    peak = max(
        (peak_tokens(levels, *window) for levels, window in cells if window and levels.size), default=None
    )
    needed, per_token = None, record.memory_expected.get("kv_bytes_per_token")
    if peak is not None and pool.size_bytes is not None and (per_token or pool.tokens):
        needed = min(peak * (per_token or pool.size_bytes / (pool.tokens or 1)), pool.size_bytes)
    users = int(pool.tokens // long_tokens) if pool.tokens and long_tokens else None
    return replace(pool, peak_tokens=peak, needed_bytes=needed, users=users)


def _known(run: Run, cell: Cell) -> np.ndarray:
    """Return HELD_COLUMNS (ns and tokens) of a cell's n requests that have them all, with shape (6, n)."""
    columns = np.array([run.values(cell.number, name) for name in HELD_COLUMNS])
    return np.asarray(columns[:, ~np.isnan(columns).any(axis=0)])


@once
def long_conversation(run: Run) -> float | None:
    """Return the 95th percentile over conversations of the tokens at the longest turn, with all requests that
    it sends at once. Takes all cells that count, since all deployments had the same conversations."""
    numbers = [cell.number for cell in run.planned_cells if cell.counts]
    turn = ["cell", "conversation", "turn"]
    columns = [*turn, "input_tokens", "output_tokens"]
    rows = run.requests.loc[run.requests["cell"].isin(numbers), columns]
    tokens = rows["input_tokens"] + rows["output_tokens"]
    at_once = tokens.groupby([rows[name] for name in turn]).sum(min_count=1)
    longest = at_once.groupby(level=turn[:2]).max().dropna().astype(float)
    return float(longest.quantile(0.95, interpolation="higher")) if len(longest) else None


def pool_of(record: StartRecord) -> KvCache:
    """Return the pool as the server says: its bytes, or its tokens times the model's bytes per token."""
    pool_bytes = record.memory_said.get("kv_cache", _whole(record.resolved.get("kv_cache_bytes")))
    tokens, per_token = _whole(record.resolved.get("kv_cache_tokens")), "kv_bytes_per_token"
    if pool_bytes is None and tokens is not None and record.memory_expected.get(per_token):
        return KvCache(tokens * record.memory_expected[per_token], tokens, is_computed=True)
    return KvCache(pool_bytes, tokens)


def kv_bytes_per_token(run: Run, label: str) -> float | None:
    """Return a token's bytes in a deployment's KV cache: as its servers say, or by the model's shape."""
    for record in run.starts_of(label):
        pool, computed = pool_of(record), record.memory_expected.get("kv_bytes_per_token")
        if pool.size_bytes and pool.tokens:
            return pool.size_bytes / pool.tokens
        if computed:
            return float(computed)
    return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def peak_tokens(requests: np.ndarray, begin_ns: int, end_ns: int) -> float:
    """Return the most tokens that requests held at once, from begin_ns to end_ns. `requests`: see _known."""
    sent, first, last, end, prompt, answer = requests
    # Seconds from begin_ns: nanoseconds since boot would leave a float no digits for the slope.
    sent, first, last, end = ((at - begin_ns) / 1e9 for at in (sent, first, last, end))
    duration_s = np.maximum(last - first, 0.0)
    is_spread = duration_s > 0
    zero = np.zeros_like(answer)
    slope = np.divide(answer, duration_s, out=zero.copy(), where=is_spread)
    edges = np.array([0.0, (end_ns - begin_ns) / 1e9])
    # At one instant, begins come before ends, since the sort is stable.
    at_s = np.concatenate([sent, first, last, edges, end])
    jump = np.concatenate([prompt, np.where(is_spread, 0.0, answer), zero, [0.0, 0.0], -(prompt + answer)])
    bend = np.concatenate([zero, slope, -slope, [0.0, 0.0], zero])
    order = np.argsort(at_s, kind="stable")
    at_s, jump, bend = at_s[order], jump[order], bend[order]
    grown = np.cumsum(np.cumsum(bend) * np.diff(at_s, append=at_s[-1]))
    after = np.cumsum(jump) + np.concatenate([[0.0], grown[:-1]])
    return float(np.maximum(after - jump, after)[(at_s >= 0.0) & (at_s <= edges[1])].max())
