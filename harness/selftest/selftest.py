"""Measure bench's own error here: climb a ladder of loads, each with a fresh reference server."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import (
    Deployment,
    Engine,
    EngineTerms,
    InstallSpec,
    Load,
    LoadJob,
    LoadSummary,
    NativeSpec,
    Place,
    RequestRow,
    SelfTest,
    SelfTestStep,
)
from serving_bench.harness.errors import CellError, UserError
from serving_bench.harness.install import install
from serving_bench.harness.load.limits import OTHER_FILES, raise_file_limit
from serving_bench.harness.load.processes import running_load
from serving_bench.harness.load.records import read_summary
from serving_bench.harness.sampling import host
from serving_bench.harness.selftest import known_error
from serving_bench.harness.selftest.sends import Served, read_sends, served
from serving_bench.harness.servers import server
from serving_bench.harness.store import request_table

_TTFT_S = 0.05
_START_TIMEOUT_S = 30.0
_TIMEOUT_S = 30.0
# The command that builds the server that can judge the largest loads.
BUILD = "bench install reference --program native"
_MODEL = "reference"


class Rung(NamedTuple):
    """One load of the ladder: streams at once, and the chunks per second of each."""

    streams: int
    chunks_per_s: float

    @property
    def label(self) -> str:
        return f"{self.streams} stream{'' if self.streams == 1 else 's'} x {self.chunks_per_s:g} chunks/s"


@dataclass(frozen=True)
class Ladder:
    """Rungs in the order of their load, and the warm-up and window of each."""

    rungs: tuple[Rung, ...]
    warmup_s: float = 0.5
    window_s: float = 1.5


def ladder_of(text: str) -> Ladder:
    """Return the ladder of loads given as `64x100,256x400`, with QUICK's short windows. Raises UserError."""
    rungs = []
    for word in text.split(","):
        match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", word.strip())
        if not match:
            raise UserError(f"--loads {text}: {word!r} is not STREAMSxRATE; write it like 64x100,256x400")
        rungs.append(Rung(int(match[1]), float(match[2])))
    return Ladder(tuple(sorted(rungs, key=lambda rung: rung.streams * rung.chunks_per_s)))


QUICK = ladder_of("1x100,64x100,256x100")
WHOLE = replace(
    ladder_of("1x100,64x10,16x100,256x10,64x100,1024x10,256x100,1024x100,256x400"), warmup_s=1.0, window_s=4.0
)


@dataclass(frozen=True)
class Reference:
    """The server to measure against. `path`: its executable, if it is one that had to be built."""

    engine: Engine
    program: str
    path: Path | None

    def spec(self, scratch: Path, *, ttft_s: float, itl_s: float, slots: int) -> NativeSpec:
        options = self.engine.options(program=self.program, ttft_s=ttft_s, itl_s=itl_s, slots=slots)
        deployment = Deployment(self.engine.name, _MODEL, "-", EngineTerms(), options, "reference")
        place = Place(None, None, "127.0.0.1", server.free_port(), scratch, program=self.path)
        spec = self.engine.launch(deployment, place)
        assert isinstance(spec, NativeSpec)
        return spec


def find_reference(program: Literal["native", "python"], cache: Path) -> Reference | None:
    """Return the reference server; None if this program is not built. See BUILD."""
    engine = ENGINES["reference"]
    spec = engine.install(program, "cpu")
    if spec is None:
        return Reference(engine, program, None)
    environment = install.installed(cache, spec) if isinstance(spec, InstallSpec) else None
    return Reference(engine, program, environment.program) if environment else None


class Climb:
    """A climb to the ladder's end, or up to a load that the server or this machine cannot handle."""

    def __init__(self, reference: Reference, ladder: Ladder, state_dir: Path) -> None:
        self._reference, self._ladder, self._state_dir = reference, ladder, state_dir
        self._steps: list[SelfTestStep] = []
        self._stamp_sources = set[str | None]()
        self._stopped: str | None = None
        self._foreign_share = host.foreign_use()

    def steps(self) -> Iterator[SelfTestStep]:
        """Measure the rungs one after the other. Blocks before each.

        Raises CellError if not even the first rung could be measured, and Interrupted.
        """
        steps = self._steps
        for rung in self._ladder.rungs:
            if stopped := _obstacle(rung, steps[-1] if steps else None):
                if not steps:
                    raise CellError(stopped)
                self._stopped = stopped
                return
            try:
                step, summary = _measure(self._reference, rung, self._ladder, self._state_dir)
            except CellError as error:
                if not steps:
                    raise
                self._stopped = f"{rung.label} could not be measured: {error}"
                return
            steps.append(step)
            self._stamp_sources.add(summary.stamp_source)
            yield step

    def result(self) -> SelfTest:
        """Return the result of the steps so far."""
        return SelfTest(
            created_at=datetime.now().astimezone().isoformat(timespec="seconds"),
            bench_version=known_error.version(),
            program=self._reference.program,
            stamp_source="kernel" if self._stamp_sources == {"kernel"} else "read",
            machine=known_error.machine(),
            steps=tuple(self._steps),
            largest=known_error.largest(self._steps),
            stopped=self._stopped,
            foreign_share=self._foreign_share(),
        )


def _obstacle(rung: Rung, before: SelfTestStep | None) -> str | None:
    if before and not before.server_kept_up:
        last = Rung(before.streams, before.chunks_per_s).label
        what = "the server could not keep its schedule" if before.chunks else "no request could be judged"
        return f"{what} at {last}; no larger load was tried"
    limit, needed = raise_file_limit(), rung.streams + OTHER_FILES  # the children inherit the limit
    return None if needed <= limit else f"{rung.label} needs {needed} open files, the limit here is {limit}"


def _measure(
    reference: Reference, rung: Rung, ladder: Ladder, state_dir: Path
) -> tuple[SelfTestStep, LoadSummary]:
    with TemporaryDirectory(prefix="bench-selftest-") as folder:
        scratch = Path(folder)
        spec = reference.spec(scratch, ttft_s=_TTFT_S, itl_s=1 / rung.chunks_per_s, slots=rung.streams + 1)
        job = _job(spec, reference, rung, ladder, scratch)
        with server.running_server(
            spec, engine="the reference server", log_path=scratch / "server.log", state_dir=state_dir
        ) as running:
            server.wait_ready(running, _START_TIMEOUT_S)
            with running_load(job, state_dir) as pulses:
                for _ in pulses:
                    server.check_alive(running)
        summary = read_summary(job)
        assert summary
        rows = request_table.read_rows(job.rows_path)
        answers = served(read_sends(scratch / "sends.bin"))
    return step(rung, rows, summary, answers), summary


def _job(spec: NativeSpec, reference: Reference, rung: Rung, ladder: Ladder, scratch: Path) -> LoadJob:
    tokens = min(128, max(8, round(0.8 * rung.chunks_per_s * min(1, rung.streams / 16))))
    return LoadJob(
        cell="s",
        base_url=spec.base_url,
        model=spec.served_model,
        engine=reference.engine.name,
        scenario="chat_multi_turn",
        scenario_options={"turns": 1, "system_words": 0, "output_tokens": tokens, "spread": 0.0},
        load=Load(
            concurrency=rung.streams,
            warmup_s=ladder.warmup_s,
            duration_s=ladder.window_s,
            steps=1,
            timeout_s=_TIMEOUT_S,
        ),
        seed=0,
        directory=str(scratch),
    )


def step(
    rung: Rung, rows: Sequence[RequestRow], summary: LoadSummary, answers: Mapping[str, Served]
) -> SelfTestStep:
    """Return the result of one load: errors of the requests in its window, and the rate of all chunks."""
    sent = [row for row in rows if request_table.in_window(row, summary)]
    outcome = known_error.errors(sent, answers)
    start_ns, end_ns = summary.window_start_ns, summary.window_end_ns
    arrived = sum(start_ns <= at_ns < end_ns for row in rows for at_ns in row.chunk_ns)
    chunks = sum(len(row.chunk_ns) for row in rows)
    late_s = known_error.quantiles(outcome.late_s)
    return SelfTestStep(
        streams=rung.streams,
        chunks_per_s=rung.chunks_per_s,
        requests=len(sent),
        failed=sum(row.outcome != "ok" for row in sent) + outcome.unpaired,
        chunks=len(outcome.late_s),
        reached_chunks_per_s=arrived / ((end_ns - start_ns) / 1e9),
        ttft_error_s=known_error.quantiles(outcome.ttft_s),
        itl_error_s=known_error.quantiles(outcome.itl_s),
        e2e_error_s=known_error.quantiles(outcome.e2e_s),
        server_late_s=late_s,
        server_kept_up=late_s is not None and late_s[0] < 1 / rung.chunks_per_s,
        cpu_s_per_chunk=(summary.cpu_s or 0.0) / chunks if chunks else None,
    )
