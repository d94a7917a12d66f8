"""`bench selftest`: measure bench's own error, and say up to which load it is small."""

from typing import Annotated

import typer
from rich.markup import escape

from engines.reference.engine import read_sends
from harness.cli.arguments import Json, Quiet, out, print_json, signals_interrupt
from harness.cli.progress.progress import Show
from harness.cli.show.tables import Row, print_rows
from harness.contracts import SelfTest, SelfTestStep
from harness.install import install
from harness.processes.supervise import reap
from harness.selftest import known_error, selftest
from harness.selftest.selftest import Rung

_EXPLAINED = """\
error: what the client reported minus what the server did, of each request (ITL: each gap);
TTFT and E2E: the client's from sending the request, the server's from that request's arrival;
of fewer than 100 the p99 is the largest"""


def selftest_command(
    quick: Annotated[bool, typer.Option("--quick", help="Three small loads only, in about 15 s.")] = False,
    loads: Annotated[
        str | None,
        typer.Option(metavar="NxR,...", help="These loads: streams x chunks per second of each."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure bench's own error on this machine, for the reports to quote. Takes about a minute."""
    cache = install.cache_dir()
    native = selftest.find_reference("native", cache, read_sends)
    reference = native or selftest.find_reference("python", cache, read_sends)
    assert reference is not None
    ladder = selftest.ladder_of(loads) if loads else selftest.QUICK if quick else selftest.WHOLE
    with signals_interrupt(), Show(quiet=quiet) as show:
        for said in reap(cache / "running"):
            show.line(said)
        if not native:
            show.line(f"the native reference server, the better judge, is not built: `{selftest.BUILD}`")
        show.line(f"{len(ladder.rungs)} loads against the {reference.program} reference server")
        result = selftest.run(
            reference,
            ladder,
            cache / "running",
            lambda rung, progress: show.rung(ladder, rung, progress),
            lambda step: show.line(_in_short(step)),
        )
        kept = known_error.keep(cache, result)
        show.line(f"kept in {kept}" if kept else "not kept: no request could be judged")
    if as_json:
        print_json(result)
    else:
        _print_selftest(result)
    if any(step.failed for step in result.steps):
        raise typer.Exit(1)


def _in_short(step: SelfTestStep) -> str:
    """Return what one load of the self-test came to, in a line."""
    rung = Rung(step.streams, step.chunks_per_s).label
    if step.ttft_error_s is None:
        return f"  {rung}: no request could be judged, {step.failed} of {step.requests} failed"
    middle, p99 = map(_error, step.ttft_error_s)
    return f"  {rung}: TTFT error p50 {middle}, p99 {p99}; {step.requests} requests, {step.failed} failed"


def _print_selftest(result: SelfTest) -> None:
    """Print the errors at each load, then up to which load they are small."""
    print_rows(out, [_step_row(step) for step in result.steps])
    out.print(_EXPLAINED)
    if result.stamp_source == "read":
        out.print("arrivals were stamped after the read: this system gives no kernel stamps")
    if result.stopped:
        out.print(escape(result.stopped))
    first, last = result.steps[0], result.steps[-1]
    if result.largest is None:
        said = f"is not under 1 ms even at {Rung(first.streams, first.chunks_per_s).label}"
    else:
        said = f"stays under 1 ms up to {Rung(*result.largest).label}"
    is_last = (last.streams, last.chunks_per_s) == result.largest
    beyond = ", the largest load tried" if is_last else ""
    out.print(escape(f"TTFT's p99 error {said} ({result.program} reference server){beyond}"))


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
    """Return a time in the unit that people read it in: us below a millisecond."""
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
