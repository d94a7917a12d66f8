"""Ends a script as bench ends: with one line about what went wrong, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from serving_bench.harness.errors import BenchError


def run(main: Callable[[], None]) -> None:
    """Call `main`, and exit with the code of what it raises."""
    try:
        main()
    except BenchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
