"""Start `bench`. Importing the rest takes a moment, and Ctrl-C during it should not show a traceback."""

import os
import signal


def main() -> None:
    # Python's own handler would show a traceback; harness.cli installs one where there is something to stop.
    signal.signal(signal.SIGINT, _interrupted)
    from serving_bench.harness.cli.app import main as command_line

    command_line()


def _interrupted(*_: object) -> None:
    """End at once. Nothing was started yet that would have to be stopped."""
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
