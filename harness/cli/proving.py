"""The command that measures bench's own error: `selftest`."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.arguments import Json, Quiet, out, print_json, signals_interrupt
from harness.cli.progress.progress import Show
from harness.install import install
from harness.processes.running import reap


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
    from engines.reference.sends import read_sends
    from harness.cli.show.selftest_text import print_selftest, step_in_short
    from harness.selftest import known_error, selftest

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
            lambda step: show.line(step_in_short(step)),
        )
        kept = known_error.keep(cache, result)
        show.line(f"kept in {kept}" if kept else "not kept: no request could be judged")
    if as_json:
        print_json(result)
    else:
        print_selftest(out, result)
    if any(step.failed for step in result.steps):
        raise typer.Exit(1)
