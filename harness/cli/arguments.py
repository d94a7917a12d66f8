"""What commands have in common: their arguments, where they print, and what a signal does to them."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from harness.errors import Interrupted

# Of tables that go into a file or a pipe, unless COLUMNS says it: rich would fold them into 80 columns.
_PIPE_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
# Without emoji codes: `run:x:` is a directory and a deployment, and no cross.
out = Console(highlight=False, emoji=False, soft_wrap=True, width=_PIPE_WIDTH)
complaints = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

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
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print the answer, the report's path and errors only.")
]


def print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


# A second Ctrl-C while all is being stopped would only cut that short; one much later is meant as a new one.
_PATIENCE_S = 60.0


def signals_interrupt() -> AbstractContextManager[None]:
    """Raise Interrupted in the block on SIGINT or SIGTERM, once; again only after _PATIENCE_S."""
    last_s = float("-inf")

    def interrupt(number: int, _: object) -> None:
        nonlocal last_s
        if time.monotonic() - last_s > _PATIENCE_S:
            last_s = time.monotonic()
            raise Interrupted(number)

    return _handling(interrupt)


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


signals_ignored = partial(_handling, signal.SIG_IGN)
