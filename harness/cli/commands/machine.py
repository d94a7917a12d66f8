"""`bench doctor` and `bench selftest`: is this machine fit to measure on, and how exact is bench on it?"""

import resource
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from serving_bench.engines import ENGINES
from serving_bench.harness.cli.commands.alike import measured_verdicts, verdict_lines, verdict_rows
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.cli.terminal import (
    Json,
    Quiet,
    Row,
    print_json,
    print_lines,
    print_rows,
    signals_interrupt,
)
from serving_bench.harness.contracts import Reason, SelfTest, SelfTestStep
from serving_bench.harness.errors import UserError
from serving_bench.harness.install import install
from serving_bench.harness.processes.supervise import reap
from serving_bench.harness.run import session
from serving_bench.harness.sampling import environment, gpu, programs
from serving_bench.harness.selftest import known_error, selftest
from serving_bench.harness.servers import container
from serving_bench.harness.settings import overrides

_LOW_DISK_BYTES = 5 << 30
_LOW_FILES = 4096


@dataclass(frozen=True)
class Finding:
    """What was found about one topic. `note`: it works, but know this; `problem`: something will not work."""

    topic: str
    state: Literal["ok", "note", "problem"]
    text: str
    remedy: str = ""  # a sentence, or empty


def doctor(as_json: Json = False) -> None:
    findings = examine(install.cache_dir(), Path("results"))
    if as_json:
        print_json(findings)
    else:
        print_rows(
            [
                {
                    "": "PROBLEM" if each.state == "problem" else each.state,
                    "topic": each.topic,
                    "finding": " - ".join(filter(None, (each.text, each.remedy))),
                }
                for each in findings
            ]
        )
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def examine(cache: Path, results: Path) -> list[Finding]:
    """Return all findings, in a fixed order. Starts nothing but `docker version`."""
    return [*_machine(gpu.devices()), _docker(), _disk("cache", cache), _disk("results", results), _files()]


def _machine(devices: Sequence[gpu.DeviceFacts] | Reason) -> Iterator[Finding]:
    facts = environment.machine_facts()
    memory = int(facts["memory_bytes"] or 0) / 2**30
    text = f"{facts['cpu_model']}, {facts['cores_usable']} cores, {memory:.1f} GiB, {facts['os']}"
    yield Finding("machine", "ok", text)
    if busy := programs.busy_now():
        yield Finding(
            "load", "note", str(busy), "Runs would be disturbed: end them, or wait until they have ended."
        )
    else:
        yield Finding("load", "ok", "other programs leave the processor alone")
    if isinstance(devices, Reason):
        yield Finding("gpu", "note", str(devices), "Runs measure host memory and the CPU.")
        return
    for device in devices:
        yield Finding("gpu", "ok", f"{device.index}: {device.name}")


def _docker() -> Finding:
    by_docker = [f"engine={name}" for name, each in ENGINES.items() if each.launchers[:1] == ("docker",)]
    remedy = f"It is needed by {' and '.join(['engine.launcher=docker', *by_docker])}."
    if shutil.which("docker") is None:
        return Finding("docker", "note", "not installed", remedy)
    version = container.ask("version", "--format", "{{.Server.Version}}", timeout_s=10.0)
    if version.code == 0:
        return Finding("docker", "ok", f"server {version.text}")
    return Finding("docker", "note", f"its daemon does not answer: {version.error[:160]}", remedy)


def _disk(what: str, path: Path) -> Finding:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    topic, text = f"disk of {what}", f"{free / 2**30:.1f} GiB free for {path}"
    if free < _LOW_DISK_BYTES:
        return Finding(topic, "problem", text, "Free some, or choose another place.")
    return Finding(topic, "ok", text)


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if limit < _LOW_FILES:
        text = f"at most {limit} open files: fewer than {limit} users"
        return Finding("file descriptors", "note", text, f"Raise it: ulimit -n {_LOW_FILES}")
    return Finding("file descriptors", "ok", f"{soft} now, up to {limit} for the load")


_EXPLAINED = """\
error: what the client reported minus what the server recorded, for each request (ITL: each gap);
TTFT and E2E: the client counts from sending the request, the server from its arrival;
with fewer than 100 values the p99 is the largest one"""

_RUNS, _ALIKE = 20, session.RESULTS / "same"


def selftest_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[verdicts [KEY=VALUE]...]",
            help="verdicts: measure instead how often a winner is named among deployments that are the same, "
            "and how their starts differ, by many short runs (of these settings). What it finds is quoted by "
            "later reports, and widens their intervals where starts depend on each other.",
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help=f"verdicts: how many runs there are in the end; {_RUNS} if not given."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=f"verdicts: where the runs are ({_ALIKE} if not given); the same command goes on with them.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Three small loads only, in about 15 s.")] = False,
    loads: Annotated[
        str | None, typer.Option(metavar="NxR,...", help="These loads: streams x chunks per second of each.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    cache, show = install.cache_dir(), Show(quiet=quiet)
    if words:
        if words[0] != "verdicts":
            raise UserError(f"bench selftest {words[0]}: no such test; the only one with a name is verdicts")
        if quick or loads:
            raise UserError(
                "--quick and --loads: are of the client's self-test, not of verdicts; leave them out"
            )
        found = measured_verdicts(overrides.parse(words[1:]), runs or _RUNS, output or _ALIKE, show)
        if as_json:
            print_json(found)
        else:
            print_rows(verdict_rows(found))
            print_lines(verdict_lines(found))
        return
    if runs or output:
        raise UserError("--runs and --output: are of `bench selftest verdicts`; leave them out")
    native = selftest.find_reference("native", cache)
    reference = native or selftest.find_reference("python", cache)
    assert reference is not None
    ladder = selftest.ladder_of(loads) if loads else selftest.QUICK if quick else selftest.WHOLE
    with signals_interrupt():
        for line in reap(cache / "running"):
            show.line(line)
        if not native:
            show.line(f"the native reference server, which is more exact, is not built: `{selftest.BUILD}`")
        show.line(f"{len(ladder.rungs)} loads against the {reference.program} reference server")
        climb = selftest.Climb(reference, ladder, cache / "running")
        for step in climb.steps():
            show.line(_in_short(step))
        result = climb.result()
        kept, why_not = known_error.keep(cache, result), "no request could be judged"
        if result.is_of_busy_machine:
            used = f"other programs used {100 * (result.foreign_share or 0):.0f} % of the processor"
            show.line(f"the machine was busy, {used}: end them and measure again")
            why_not = "an earlier result of the idle machine is better, or no request could be judged"
        show.line(f"kept in {kept}" if kept else f"not kept: {why_not}")
    if as_json:
        print_json(result)
    else:
        print_rows([_step_row(step) for step in result.steps])
        print_lines(_lines(result))
    if any(step.failed for step in result.steps):
        raise typer.Exit(1)


def _in_short(step: SelfTestStep) -> str:
    counts = f"{step.requests} requests, {step.failed} failed"
    label = selftest.Rung(step.streams, step.chunks_per_s).label
    return f"  {label}: TTFT error p50, p99 {_errors(step.ttft_error_s)}; {counts}"


def _lines(result: SelfTest) -> Iterator[str]:
    yield _EXPLAINED
    if result.stamp_source == "read":
        yield "arrivals were stamped after the read: this system gives no kernel timestamps"
    if result.stopped:
        yield result.stopped
    first, last = result.steps[0], result.steps[-1]
    if result.largest is None:
        limit_text = f"is not under 1 ms even at {selftest.Rung(first.streams, first.chunks_per_s).label}"
    else:
        limit_text = f"stays under 1 ms up to {selftest.Rung(*result.largest).label}"
    beyond = ", the largest load tried" if (last.streams, last.chunks_per_s) == result.largest else ""
    yield f"TTFT's p99 error {limit_text} ({result.program} reference server){beyond}"


def _step_row(step: SelfTestStep) -> Row:
    late, cpu_s = "" if step.server_kept_up else " (fell behind)", step.cpu_s_per_chunk
    return {
        "streams": str(step.streams),
        "chunks/s each": f"{step.chunks_per_s:g}",
        "reached, all": f"{step.reached_chunks_per_s:,.0f}/s",
        "requests": f"{step.requests}" + (f" ({step.failed} failed)" if step.failed else ""),
        "TTFT error p50, p99": _errors(step.ttft_error_s),
        "ITL error p50, p99": _errors(step.itl_error_s),
        "E2E error p50, p99": _errors(step.e2e_error_s),
        "server late p50, p99": _errors(step.server_late_s) + late,
        "CPU per chunk": "-" if cpu_s is None else _error(cpu_s),
    }


def _errors(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else ", ".join(map(_error, pair))


def _error(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
