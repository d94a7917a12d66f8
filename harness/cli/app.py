"""The command line: its commands, exit codes, and how a mistake is told. No logic of measuring."""

from __future__ import annotations

import sys
from typing import Any

import typer
from rich.markup import escape

from harness.cli import fitting, looking, making, measuring, proving, reading, searching, viewing
from harness.cli.arguments import complaints
from harness.errors import BenchError, Interrupted

app = typer.Typer(
    help="Which engine, at which quantization, should serve your language model on your device.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Every mistake in a command's own arguments; Typer exports only this subclass of it.
UsageError: Any = typer.BadParameter.__mro__[1]
# In the order of the help: what does it, and an example.
COMMANDS = (
    ("run", measuring.run, "bench run scenario=chat_multi_turn quantization=fp16,gguf load.concurrency=1,8"),
    ("plan", measuring.plan_command, "bench plan engine=llama_cpp,reference load.concurrency=1,4"),
    (
        "search",
        searching.search,
        "bench search slo.ttft_s.p95=500ms slo.success=99% engine=llama_cpp,reference search.highest=64",
    ),
    (
        "fit",
        fitting.fit,
        "bench fit model=llama-3.3-70b-instruct fit.device_memory=80GB load.concurrency=32 "
        "engine.context_length=8192",
    ),
    ("report", reading.report, "bench report results/20261125-101500-chat_multi_turn"),
    ("compare", reading.compare, 'bench compare results/before "results/after:vllm awq" compare.margin=10%'),
    (
        "gate",
        reading.gate,
        "bench gate results/before results/after gate.metric=ttft_s.p95 gate.max_regression=5%",
    ),
    ("view", viewing.view, "bench view results"),
    ("install", making.install_command, "bench install llama_cpp"),
    ("prepare", making.prepare, "bench prepare engine=llama_cpp,vllm quantization=bf16,gguf-q8_0,awq"),
    ("list", looking.list_command, "bench list quantizations"),
    ("doctor", looking.doctor, "bench doctor --json"),
    ("selftest", proving.selftest_command, "bench selftest --quick"),
)
for _name, _command, _example in COMMANDS:
    app.command(_name, epilog=f"Example:  {_example}")(_command)


@app.callback()
def _without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """The `bench` command. Exit codes: 0 fine, 1 a cell or the gate failed, 2 a mistake, 3 the
    gate is inconclusive, 130 and 143 signals."""
    try:
        sys.exit(app(standalone_mode=False, prog_name="bench") or 0)
    except UsageError as mistake:
        asked = mistake.ctx.command_path if mistake.ctx else "bench"
        complaints.print(escape(f"{mistake.format_message()} See `{asked} --help`."))
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
