"""Commands that make what servers need: `install`, `prepare`."""

from functools import partial
from typing import Annotated

import typer
from rich.markup import escape

from engines.model import weights
from harness.cli.arguments import Overrides, Quiet, Study, complaints, out, signals_interrupt
from harness.cli.listing import has_device
from harness.cli.progress.progress import Show
from harness.cli.show.plan_text import skip_lines
from harness.contracts import Reason, Weights
from harness.errors import BenchError, UserError
from harness.install import install
from harness.install.builds import spec_of
from harness.install.provision import failures, provide_weights, wanted
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
    spec = spec_of(name, program, has_device=has_device())
    what = name if program is None else f"{name} ({program})"
    if spec is None:
        out.print(f"{what} needs no environment of its own")
        return
    if isinstance(spec, Reason):
        raise UserError(f"{what}: {spec.text}")
    cache = install.cache_dir()
    if remove:
        freed = install.remove(cache, spec)
        cached = "; what was downloaded stays cached" if spec.lock else ""
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
    settings = config.settings(overrides.parse(changes or [], study))
    needed, skips = wanted(settings, weights.can_prepare)
    reasons = {skip.reason for skip in skips}
    if not needed and len(reasons) == 1:
        raise UserError(reasons.pop())
    cache = install.cache_dir()
    made: list[Weights] = []
    failed: dict[str, list[Weights]] = {}
    with signals_interrupt(), Show(quiet=quiet) as show:
        for line in skip_lines(skips):
            show.line(line)
        if not needed:
            raise UserError("nothing to prepare: none of these settings needs weights that can be had")
        for each in needed:
            try:
                found = provide_weights(each, weights, cache, show.line, limit_bytes=None)
            except BenchError as error:
                failed.setdefault(str(error), []).append(each)
                continue
            made.append(each)
            size = size_text(found.size_bytes)
            out.print(escape(f"{each.model} {each.quantization}: {found.path}  {size}"))
            if found.note:
                out.print(escape(f"  {found.note}"))
    for reason, which in failed.items():
        names = [f"{each.model} {each.quantization} as {each.file_format}" for each in which]
        complaints.print(escape(f"{', '.join(names)}: {reason}"))
    lacking = [each for which in failed.values() for each in which]
    if failures(lacking, made, partial(weights.can_prepare, cache=cache)):
        raise typer.Exit(1)
