"""Define the command line: commands, exit codes, mistakes. Imports a command's module when it is called."""

import os
import platform
import signal
import sys
from importlib import import_module, metadata
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from harness.contracts import inert
from harness.errors import BenchError, Interrupted

# Every mistake in a command's own arguments; Typer exports only this subclass of it.
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
        "Show what a scenario would send, and what of it a prefix cache could serve. Starts nothing.",
        "bench describe scenario=rag scenario.retrieved=8 load.concurrency=16 --html rag.html",
    ),
    "search": Command(
        "measuring:search",
        "Find the highest load that keeps every objective (slo.*), on each server start.",
        "bench search slo.ttft_s.p95=500ms slo.success=99% engine=llama_cpp,reference search.highest=64",
    ),
    "fit": Command(
        "making:fit_command",
        "Say which engines at which quantizations fit the device's memory, from the model's shape alone.",
        "bench fit model=llama-3.3-70b-instruct fit.device_memory=79GiB load.concurrency=32 "
        "engine.context_length=8192",
    ),
    "report": Command(
        "reading:report",
        "Write a run's report again, or its numbers and charts in another form. Needs the directory alone; "
        "pictures need an installed Chromium, Chrome or Edge.",
        "bench report results/20261125-101500-chat_multi_turn",
    ),
    "compare": Command(
        "reading:compare",
        "Compare two runs, or two deployments: what differs in how they were made, then B against A.",
        'bench compare results/before "results/after:vllm awq" compare.margin=10%',
    ),
    "gate": Command(
        "reading:gate",
        "Say whether NEW is worse than BASE by more than is allowed, in speed or (slo.kl_nats.mean, "
        "slo.tasks.score) in quality. Exit code 0: it is not, 1: it is, 3: the interval does not tell.",
        "bench gate results/before results/after gate.metric=ttft_s.p95 slo.kl_nats.mean=0.05",
    ),
    "merge": Command(
        "fleet:merge_command",
        "Join runs of single repeats of one plan, measured on several machines, into one run.",
        "bench merge results/repeat-1 results/repeat-2 --output results/all",
    ),
    "claim": Command(
        "claiming:claim",
        "Run a published sentence about engines, and say whether it is reproduced here.",
        "bench claim llama_cpp_flat",
    ),
    "view": Command(
        "reading:view",
        "Write an index of all runs in a directory: one page, a row per run with its headline, newest first.",
        "bench view results",
    ),
    "verify": Command(
        "sharing:verify",
        "Say which files of a run are changed, torn, missing or unlisted, by their checksums.",
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
        "Write a run into one file for others to run again, unless anything secret is in it.",
        "bench bundle results/20261125-101500-chat_multi_turn --output run.tar.gz",
    ),
    "rerun": Command(
        "rerunning:rerun",
        "Say what differs here from where a run was measured, then run the same plan.",
        "bench rerun run.tar.gz --output results/again",
    ),
    "install": Command(
        "making:install_command",
        "Make an engine's own environment in the user's cache directory, with your own pip settings.",
        "bench install llama_cpp",
    ),
    "prepare": Command(
        "making:prepare",
        "Find or make the weights that a run with the same keys would need, and print where they are.",
        "bench prepare engine=llama_cpp,vllm quantization=bf16,gguf-q8_0,awq",
    ),
    "list": Command(
        "listing:list_command",
        "List what bench knows, with what is available here and why not.",
        "bench list quantizations",
    ),
    "doctor": Command(
        "machine:doctor",
        "Look whether this machine is fit to measure on, and say what to do where it is not.",
        "bench doctor --json",
    ),
    "selftest": Command(
        "machine:selftest_command",
        "Measure bench's own error on this machine, for the reports to quote. Takes about a minute.",
        "bench selftest --quick",
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
            told = COMMANDS[str(name)]
            module, _, function = told.function.partition(":")
            alone = typer.Typer(rich_markup_mode=None, add_completion=False)
            called = getattr(import_module(f"harness.cli.commands.{module}"), function)
            # A docstring begins with the summary, and is there only where there is more to say.
            said = None if called.__doc__ else told.summary
            alone.command(name, help=said, epilog=f"Example:  {told.example}")(called)
            command = typer.main.get_command(alone)
            for each in command.params:
                if each.param_type_name == "argument":
                    # Their help says it in words; Typer's is `<list[str]>`.
                    vars(each)["display_type_rich"] = lambda ctx: None
        return name, command, rest


app = typer.Typer(
    cls=Commands,
    help="Which engine, at which quantization, should serve your language model on your device.",
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
    129, 130 and 143 signals, 141 a pipe that its reader closed.
    """
    try:
        sys.exit(app(standalone_mode=False, prog_name="bench") or 0)
    except UsageError as mistake:
        # Of an option without its value it does not say which command has it.
        named = " ".join(["bench", *[word for word in sys.argv[1:2] if word in COMMANDS]])
        asked, said = mistake.ctx.command_path if mistake.ctx else named, mistake.format_message()
        _complain(f"{inert(said)}{'' if said[-1] in '.?' else '.'} See `{asked} --help`.", 2)
    except Interrupted as interrupted:
        _complain("interrupted", interrupted.exit_code)
    except BenchError as error:
        _complain(str(error), error.exit_code)
    except SystemExit as ended:
        # Click and Rich make 1 of it.
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
    """Exit as SIGPIPE would: who closed the pipe has read what it wanted."""
    # Python would write what is left at its end, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _complain(what: str, exit_code: int) -> None:
    from harness.cli.terminal import complaints
    from harness.contracts import masked, masked_urls

    # It begins with what it is about: `/etc/passwd: no run here` tells no password.
    about, colon, said = masked_urls(what).partition(": ")
    complaints.print(inert(f"{masked(about)}{colon}{masked(said)}", keep="\n"), markup=False)
    sys.exit(exit_code)
