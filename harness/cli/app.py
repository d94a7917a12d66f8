"""Define the command line: commands, exit codes, errors. A command's module is imported when it is called."""

import os
import platform
import signal
import sys
from importlib import import_module, metadata
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from serving_bench.harness.contracts import inert
from serving_bench.harness.errors import BenchError, Interrupted

# The base class of all errors in a command's arguments. Typer exports only its subclass BadParameter.
UsageError: Any = typer.BadParameter.__mro__[1]


class Command(NamedTuple):
    """One command: its function (`module:name` of harness.cli.commands), what it does, an example."""

    function: str
    summary: str
    example: str


# In the order of the help.
COMMANDS = {
    "run": Command(
        "measuring:run",
        "Start each server in turn, play the same conversations at it, and write one report.",
        "bench run scenario=chat_multi_turn quantization=fp16,gguf load.concurrency=1,8",
    ),
    "plan": Command(
        "planning:plan_command",
        "Show what a run would do, in order, with what is skipped and why. Starts nothing.",
        "bench plan engine=llama_cpp,reference load.concurrency=1,4",
    ),
    "describe": Command(
        "describing:describe",
        "Show what a scenario would send, and how much of it a prefix cache could serve. Starts nothing.",
        "bench describe scenario=rag scenario.retrieved=8 load.concurrency=16 --html rag.html",
    ),
    "search": Command(
        "measuring:search",
        "Find the highest load that keeps every objective (slo.*), on each server start.",
        "bench search slo.ttft_s.p95=500ms slo.success=99% engine=llama_cpp,reference search.highest=64",
    ),
    "fit": Command(
        "preparing:fit_command",
        "Say which engines at which quantizations fit the device's memory, computed from the model's shape.",
        "bench fit model=llama-3.3-70b-instruct fit.device_memory=79GiB load.concurrency=32 "
        "engine.context_length=8192",
    ),
    "report": Command(
        "reading:report",
        "Write a run's report again, or its numbers and charts in another form. Needs only the directory; "
        "pictures also need Chromium, Chrome or Edge.",
        "bench report results/20261125-101500-chat_multi_turn",
    ),
    "compare": Command(
        "reading:compare",
        "Compare two runs, or two deployments: what differs in how they were made, then B against A.",
        'bench compare results/before "results/after:vllm awq" compare.margin=10%',
    ),
    "gate": Command(
        "reading:gate",
        "Check whether NEW is worse than BASE by more than is allowed, in speed or in quality "
        "(slo.kl_nats.mean, slo.tasks.score). Exit code 0: it is not, 1: it is, 3: inconclusive.",
        "bench gate results/before results/after gate.metric=ttft_s.p95 slo.kl_nats.mean=0.05",
    ),
    "merge": Command(
        "fleet:merge_command",
        "Merge runs of single repeats of one plan, measured on several machines, into one run.",
        "bench merge results/repeat-1 results/repeat-2 --output results/all",
    ),
    "claim": Command(
        "claiming:claim",
        "Test a published claim about engines on this machine, and say whether it is reproduced.",
        "bench claim llama_cpp_flat",
    ),
    "view": Command(
        "reading:view",
        "Write an index of all runs in a directory: one page, a row per run with its headline, newest first.",
        "bench view results",
    ),
    "verify": Command(
        "sharing:verify",
        "Check a run's files against their checksums: which are changed, torn, missing or unlisted.",
        "bench verify results/20261125-101500-chat_multi_turn",
    ),
    "import": Command(
        "reading:import_command",
        "Read result files of AIPerf, GuideLLM or vllm bench serve into a results directory, for report and "
        "compare. They get no verdict.",
        "bench import artifacts/profile_export.jsonl --output results/from-aiperf",
    ),
    "bundle": Command(
        "sharing:bundle_command",
        "Pack a run into one file that others can rerun, unless there is a secret in it.",
        "bench bundle results/20261125-101500-chat_multi_turn --output run.tar.gz",
    ),
    "rerun": Command(
        "rerunning:rerun",
        "Show what differs between this machine and the one a run was measured on, then run the same plan.",
        "bench rerun run.tar.gz --output results/again",
    ),
    "install": Command(
        "preparing:install_command",
        "Install an engine in an environment of its own in your cache directory, with your pip settings.",
        "bench install llama_cpp",
    ),
    "prepare": Command(
        "preparing:prepare",
        "Find or make the weights that a run with the same keys would need, and print where they are.",
        "bench prepare engine=llama_cpp,vllm quantization=bf16,gguf-q8_0,awq",
    ),
    "list": Command(
        "listing:list_command",
        "List what bench knows, what of it is available here, and why the rest is not.",
        "bench list quantizations",
    ),
    "doctor": Command(
        "machine:doctor",
        "Check whether this machine is fit to measure on, and say what to do if it is not.",
        "bench doctor --json",
    ),
    "selftest": Command(
        "machine:selftest_command",
        "Measure bench's own error on this machine, for the reports to quote. Takes about a minute.",
        "bench selftest --quick; bench selftest verdicts --runs 20",
    ),
}


class Commands(TyperGroup):
    """The group of all commands. The help shows their summaries; a call imports its own command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Only a short_help is shown whole.
        self.commands = {name: TyperCommand(name, short_help=each.summary) for name, each in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if command:
            command_row = COMMANDS[str(name)]
            module, _, function = command_row.function.partition(":")
            alone = typer.Typer(rich_markup_mode=None, add_completion=False)
            called = getattr(import_module(f"serving_bench.harness.cli.commands.{module}"), function)
            # A command has a docstring only if it says more than the summary, which it begins with.
            summary = None if called.__doc__ else command_row.summary
            alone.command(name, help=summary, epilog=f"Example:  {command_row.example}")(called)
            command = typer.main.get_command(alone)
            for each in command.params:
                if each.param_type_name == "argument":
                    # Typer would show `<list[str]>`; the help text says it in words.
                    vars(each)["display_type_rich"] = lambda ctx: None
        return name, command, rest


app = typer.Typer(
    cls=Commands,
    help="Find out which engine, at which quantization, should serve your language model on your device.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _without_command(
    context: typer.Context,
    is_version: Annotated[
        bool, typer.Option("--version", help="Print the versions of bench and Python.")
    ] = False,
) -> None:
    if is_version:
        print(f"bench {metadata.version('serving-bench')}, Python {platform.python_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run the `bench` command and exit.

    Exit codes: 0 fine, 1 a cell, the gate or a claim failed, 2 a mistake, 3 a gate or claim is inconclusive,
    129, 130 and 143 signals, 141 the reader closed the pipe.
    """
    try:
        sys.exit(app(standalone_mode=False, prog_name="bench") or 0)
    except UsageError as mistake:
        # For an option without its value, Click does not say which command it belongs to.
        named = " ".join(["bench", *[word for word in sys.argv[1:2] if word in COMMANDS]])
        command, message = mistake.ctx.command_path if mistake.ctx else named, mistake.format_message()
        _complain(f"{inert(message)}{'' if message[-1] in '.?' else '.'} See `{command} --help`.", 2)
    except Interrupted as interrupted:
        remark = interrupted.remark and f": {interrupted.remark}"
        _complain(f"interrupted{remark}", interrupted.exit_code)
    except BenchError as error:
        _complain(str(error), error.exit_code)
    except SystemExit as ended:
        # Click and Rich turn a closed pipe into exit code 1.
        if isinstance(ended.__context__, BrokenPipeError):
            _leave_closed_pipe()
        raise
    except BrokenPipeError:
        _leave_closed_pipe()
    except OSError as error:
        if error.filename is None:
            raise
        _complain(f"{inert(str(error.filename))}: {error.strerror}", 2)


def _leave_closed_pipe() -> None:
    """Exit as SIGPIPE would: the reader has closed the pipe because it has read what it wanted."""
    # Else Python would flush the rest at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _complain(what: str, exit_code: int) -> None:
    from serving_bench.harness.cli.terminal import complaints
    from serving_bench.harness.contracts import masked, masked_urls

    # Each half is masked by itself: `/etc/passwd: no run here` is a path, not a password.
    about, colon, cause = masked_urls(what).partition(": ")
    complaints.print(inert(f"{masked(about)}{colon}{masked(cause)}", keep="\n"), markup=False)
    sys.exit(exit_code)
