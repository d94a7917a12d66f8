"""The command line: reads arguments, calls what does the work, prints results. May import anything; owns
exit codes and signals, no logic of measuring."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from harness import config, install, limits, overrides, plan, preparing
from harness.config import Settings
from harness.context_fit import context_lines
from harness.contracts import Reason
from harness.errors import BenchError, Interrupted, UserError
from harness.plan_text import skip_lines, unmatched
from harness.progress import Show
from harness.provision import check_builds, device_of, why_not_here
from harness.running import reap
from harness.units import size_text

# harness.session, store, selftest, known_error and listing are imported by the commands that need them: with
# pyarrow and numpy, which take longer than all of `bench fit`.
if TYPE_CHECKING:
    from harness.store import RunRecord

app = typer.Typer(
    help="Which engine, at which quantization, should serve your language model on your device.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Every mistake in a command's own arguments; Typer exports only this subclass of it.
UsageError: Any = typer.BadParameter.__mro__[1]
# Of tables that go into a file or a pipe, unless COLUMNS says it: rich would fold them into 80 columns.
_PIPE_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
out = Console(highlight=False, soft_wrap=True, width=_PIPE_WIDTH)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="What is measured, such as load.concurrency=1,8 (see `bench list keys`)",
    ),
]
Study = Annotated[
    Path | None, typer.Option("--from", metavar="STUDY.yaml", help="A file of the same keys; arguments win.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]


@app.callback()
def _without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _example(text: str) -> str:
    return f"Example:  {text}"


@app.command(
    epilog=_example("bench run scenario=chat_multi_turn quantization=fp16,gguf load.concurrency=1,8")
)
def run(
    changes: Overrides = None,
    study: Study = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of this run; new or empty.", show_default="results/<time>")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure what a run lacks: failed, invalid or missing.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Start each server in turn, play the same conversations at it, and write one report."""
    from harness import session, store

    if resume is not None:
        if changes or study or output:
            raise UserError("--resume takes the run's own settings; give no keys, --from or --output with it")
        record = store.read_run(resume)
        _measure(resume, record, quiet, session.settings_of(record))
        return
    settings = config.settings(overrides.parse(changes or [], study))
    if output is not None:
        session.check_output(output)
    _measure(output, None, quiet, settings)


def _measure(directory: Path | None, record: RunRecord | None, quiet: bool, settings: Settings) -> None:
    """Measure a new run, or what a recorded one lacks; print where its report is."""
    from engines import weights
    from engines.weights.facts import most_context
    from harness import known_error, session

    can_prepare = partial(weights.can_prepare, cache=install.cache_dir())
    is_new = record is None
    whole = plan.make(settings, can_prepare, why_not_here(device_of(settings)), most_context, is_new=is_new)
    starts = session.missing_starts(directory, record, whole) if record and directory else whole.starts
    with signals_interrupt(), Show(quiet=quiet) as show:
        for line in (*skip_lines(whole.skips), *context_lines(whole.starts)):
            show.line(line)
        if not whole.starts:
            raise UserError("nothing to run: every combination was skipped")
        if not starts:
            show.line("every cell is completed; nothing to measure")
        provisions, site = session.provision(settings, starts, weights, install.cache_dir(), show)
        directory = directory or session.new_run_dir(Path("results"), settings)
        with session.sole_writer(directory):
            record = record or session.begin(
                directory, settings, whole, known_error.find(install.cache_dir())
            )
            try:
                cells = session.measure(directory, record, starts, provisions, site, show) if starts else []
            except Interrupted as interrupted:
                if quiet:
                    raise
                show.line(f"interrupted; `bench run --resume {directory}` measures what is missing")
                raise typer.Exit(interrupted.exit_code) from None
            finally:
                _report_whatever_happened(directory, show)
    out.print(escape(str(directory / "report.html")))
    failed = sum(not cell.counts for cell in cells)
    if failed:
        show.line(
            f"{failed} of {len(cells)} cells failed or are invalid; "
            f"`bench run --resume {directory}` measures them again"
        )
        raise typer.Exit(1)


def _report_whatever_happened(directory: Path, show: Show) -> None:
    """Write the report also after Ctrl-C, undisturbed by another; a failure here must not hide the first."""
    from reports import write_report

    show.line("writing the report")
    with signals_ignored():
        try:
            write_report(directory)
        except (BenchError, OSError) as error:
            show.line(f"the report could not be written: {error}; try `bench report {directory}`")


@app.command("plan", epilog=_example("bench plan engine=llama_cpp,reference load.concurrency=1,4"))
def plan_command(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Show what a run would do, in order, with what is skipped and why. Starts nothing."""
    from engines import weights
    from engines.weights.facts import most_context
    from harness import listing

    settings = config.settings(overrides.parse(changes or [], study))
    can_prepare = partial(weights.can_prepare, cache=install.cache_dir())
    device = device_of(settings)
    whole = plan.make(settings, can_prepare, why_not_here(device), most_context)
    check_builds(device, [start.deployment for start in whole.starts])
    limits.check_files(whole.starts)
    if as_json:
        _print_json({**msgspec.to_builtins(whole), "unmatched": unmatched(whole)})
    else:
        listing.print_plan(out, whole)
    if not whole.starts:
        raise UserError("nothing to run: every combination was skipped")


@app.command(
    epilog=_example(
        "bench fit model=llama-3.3-70b-instruct fit.device_memory=80GB load.concurrency=32 "
        "engine.context_length=8192"
    )
)
def fit(changes: Overrides = None, study: Study = None, as_json: Json = False) -> None:
    """Say which engines at which quantizations fit the device's memory, from the model's shape alone.

    model= names one of `bench list models`, a config.json or its directory, a .gguf file, or hf:org/name.

    Only for hf:org/name is the hub asked, and only for its config.json. Nothing is downloaded or started.

    fit.device_memory=24GiB stands for a GPU that need not be here; else this machine's memory counts.

    Several loads, contexts or models make a table each. The exit code is 0 also where nothing fits.
    """
    from engines import weights
    from engines.weights.facts import known_facts
    from harness import fit as fitting
    from harness.fit_device import memory_of
    from harness.fit_text import fit_record, print_fit
    from harness.provision import why_not_on

    settings, terms = config.fit_settings(overrides.parse(changes or [], study))
    memory = memory_of(settings.device, terms.device_memory_bytes)
    known = {model: known_facts(model) for model in settings.models}
    facts = {model: each.facts for model, each in known.items()}
    origins = {model: each.origin for model, each in known.items()}
    can_prepare = partial(weights.can_prepare, cache=install.cache_dir())
    tables = fitting.fit(settings, facts, memory, why_not_on, can_prepare, origins)
    if as_json:
        _print_json(fit_record(tables, known, memory))
    else:
        print_fit(out, tables, known, memory)


@app.command(epilog=_example("bench report results/20261125-101500-chat_multi_turn"))
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="DIR/report.html")
    ] = None,
) -> None:
    """Write a run's report again. Needs the directory alone."""
    from reports import write_report

    out.print(escape(str(write_report(directory, output))))


@app.command(epilog=_example("bench compare results/before results/after"))
def compare(
    a: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    b: Annotated[Path, typer.Argument(metavar="DIR", help="Another.")],
    as_json: Json = False,
) -> None:
    """Put the values of two runs side by side, after what differs in how they were made."""
    from harness.compare_text import print_comparison
    from reports import compare_runs, to_builtins

    comparison = compare_runs(a, b)
    if as_json:
        _print_json(to_builtins(comparison))
    else:
        print_comparison(out, comparison)


@app.command("install", epilog=_example("bench install llama_cpp"))
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

    An install that was cut short begins anew, without downloading again what pip has kept."""
    from harness import listing

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
        out.print(f"removed {what}: {size_text(freed)} freed" if freed else f"{what} is not installed")
        return
    with signals_interrupt(), Show(quiet=quiet) as show:
        made = install.install(cache, spec, show.line)
    out.print(f"{what} is installed in {escape(str(made.folder))} ({size_text(made.size_bytes)})")


@app.command(epilog=_example("bench prepare engine=llama_cpp,vllm quantization=bf16,gguf-q8_0,awq"))
def prepare(changes: Overrides = None, study: Study = None, quiet: Quiet = False) -> None:
    """Find or make the weights that a run with the same keys would need, and print where they are.

    With engine=... in the files that these engines take. Without it in each format that some engine takes:
    awq as safetensors, gguf-q8_0 as GGUF, fp16 and bf16 as both where the model can be had so.

    model=hf:organisation/name is downloaded; of model=/path/x-f16.gguf other GGUF kinds are made, of the
    directory of a 16-bit or F32 checkpoint awq, w4a16 and all GGUF kinds.

    What cannot be made is said in a line and the rest goes on; the exit code is then 1.
    """
    from engines import weights
    from harness.provision import provide_weights

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


@app.command("list", epilog=_example("bench list quantizations"))
def list_command(
    what: Annotated[
        str, typer.Argument(help="engines, tools, scenarios, quantizations, models, metrics or keys")
    ] = "engines",
    as_json: Json = False,
) -> None:
    """List what bench knows, with what is available here and why not."""
    from harness import listing

    if as_json:
        _print_json(listing.facts_of(what))
    else:
        listing.print_list(out, what)


@app.command(epilog=_example("bench doctor --json"))
def doctor(as_json: Json = False) -> None:
    """Look whether this machine is fit to measure on, and say what to do where it is not."""
    from harness import listing
    from harness.doctor import examine

    findings = examine(install.cache_dir(), Path("results"))
    if as_json:
        _print_json(findings)
    else:
        listing.print_findings(out, findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command("selftest", epilog=_example("bench selftest --quick"))
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
    from engines.reference_sends import read_sends
    from harness import known_error, listing, selftest

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
            lambda step: show.line(listing.step_in_short(step)),
        )
        kept = known_error.keep(cache, result)
        show.line(f"kept in {kept}" if kept else "not kept: no request could be judged")
    if as_json:
        _print_json(result)
    else:
        listing.print_selftest(out, result)
    if any(step.failed for step in result.steps):
        raise typer.Exit(1)


@app.command("worker", epilog=_example("bench worker --master 10.0.0.5:5557"))
def worker_command(
    master: Annotated[
        str,
        typer.Option(metavar="HOST[:PORT]", help="The machine that measures, and the port of its load.bind."),
    ],
    once: Annotated[bool, typer.Option("--once", help="Play one cell, then exit.")] = False,
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable with the server's API key on this machine.")
    ] = "OPENAI_API_KEY",
) -> None:
    """Play a share of the load of another machine's runs, cell after cell, until Ctrl-C.

    There, start it with `bench run load.workers=N load.bind=0.0.0.0:5557 engine.base_url=http://HOST:PORT/v1
    ...`: a running server, by an address that this machine reaches.

    Here it needs the same version of bench, and what a scenario reads at the same path.

    The connection is neither encrypted nor authenticated: keep the port within a trusted network.
    """
    from harness.load.address import parse_address
    from harness.load.standby import stand_by

    address = parse_address("--master", master)
    with signals_interrupt():
        code = stand_by(address, api_key_env, once=once, tell=lambda line: print(line, flush=True))
    raise typer.Exit(code)


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A second Ctrl-C while all is being stopped would only cut that short; one much later is meant anew.
_PATIENCE_S = 60.0


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted, once; again only after _PATIENCE_S."""
    last_s = float("-inf")

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        if time.monotonic() - last_s > _PATIENCE_S:
            last_s = time.monotonic()
            raise Interrupted(number)

    with _handling(interrupt):
        yield


@contextmanager
def signals_ignored() -> Iterator[None]:
    with _handling(signal.SIG_IGN):
        yield


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def main() -> None:
    """The `bench` command. Exit codes: 0 fine, 1 a cell failed, 2 a mistake, 130 and 143 signals."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UsageError as mistake:
        complaints.print(escape(f"{mistake.format_message()} See `bench --help`."))
        sys.exit(2)
    except Interrupted as interrupted:
        complaints.print("interrupted")
        sys.exit(interrupted.exit_code)
    except BenchError as error:
        complaints.print(escape(str(error)))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        complaints.print(escape(f"{error.filename}: {error.strerror}"))
        sys.exit(2)
