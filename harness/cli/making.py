"""Commands that make what servers need: `install`, `prepare`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.markup import escape

from harness.cli.arguments import Overrides, Quiet, Study, complaints, out, signals_interrupt
from harness.cli.progress.progress import Show
from harness.cli.show.plan_text import skip_lines
from harness.contracts import Reason
from harness.errors import BenchError, UserError
from harness.install import install, preparing
from harness.settings import config, overrides
from harness.settings.units import size_text


def install_command(
    name: Annotated[
        str,
        typer.Argument(help="An engine, as in `bench list engines`, or a tool, as in `bench list tools`."),
    ],
    program: Annotated[
        str | None, typer.Option(help="Which of its programs; by default the first that needs installing.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove its environment instead.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make an engine's own environment in the user's cache directory, with your own pip settings.

    uv installs it. An install that was cut short begins again, without downloading what uv's cache has."""
    from harness.cli.show import listing

    spec = listing.spec_of(name, program)
    what = name if program is None else f"{name} ({program})"
    if spec is None:
        out.print(f"{what} needs no environment of its own")
        return
    if isinstance(spec, Reason):
        raise UserError(f"{what}: {spec.text}")
    cache = install.cache_dir()
    if remove:
        freed = install.remove(cache, spec)
        cached = "; what was downloaded stays in uv's cache" if spec.lock else ""
        out.print(
            f"removed {what}: {size_text(freed)} freed{cached}" if freed else f"{what} is not installed"
        )
        return
    with signals_interrupt(), Show(quiet=quiet) as show:
        made = install.install(cache, spec, show.line)
    out.print(f"{what} is installed in {escape(str(made.folder))} ({size_text(made.size_bytes)})")


def prepare(changes: Overrides = None, study: Study = None, quiet: Quiet = False) -> None:
    """Find or make the weights that a run with the same keys would need, and print where they are.

    With engine=... in the files that these engines take. Without it in each format that some engine takes:
    awq as safetensors, gguf-q8_0 as GGUF, fp16 and bf16 as both where the model can be had so.

    model=hf:organisation/name is downloaded; of model=/path/x-f16.gguf other GGUF kinds are made, of the
    directory of a 16-bit or F32 checkpoint awq, w4a16 and all GGUF kinds.

    What cannot be made is said in a line and the rest goes on; the exit code is then 1.
    """
    from engines.model import weights
    from harness.install.provision import provide_weights

    wanted, skips = preparing.wanted(
        config.settings(overrides.parse(changes or [], study)), weights.can_prepare
    )
    reasons = {skip.reason for skip in skips}
    if not wanted and len(reasons) == 1:
        raise UserError(reasons.pop())
    with signals_interrupt(), Show(quiet=quiet) as show:
        for line in skip_lines(skips):
            show.line(line)
        if not wanted:
            raise UserError("nothing to prepare: none of these settings needs weights that can be had")
        cache = install.cache_dir()
        provide = partial(provide_weights, store=weights, cache=cache, on_line=show.line, limit_bytes=None)
        made, failed = [], []
        names_by_reason: dict[str, list[str]] = {}
        for needed, outcome in preparing.in_turn(wanted, provide):
            what = f"{needed.model} {needed.quantization}"
            if isinstance(outcome, BenchError):
                failed.append(needed)
                names_by_reason.setdefault(str(outcome), []).append(f"{what} as {needed.file_format}")
                continue
            made.append(needed)
            out.print(escape(f"{what}: {outcome.path}  {size_text(outcome.size_bytes)}"))
            if outcome.note:
                out.print(escape(f"  {outcome.note}"))
    for reason, names in names_by_reason.items():
        complaints.print(escape(f"{', '.join(names)}: {reason}"))
    if preparing.failures(failed, made, partial(weights.can_prepare, cache=cache)):
        raise typer.Exit(1)
