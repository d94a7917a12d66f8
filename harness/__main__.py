"""Where `bench` begins: importing the rest takes a moment, and Ctrl-C in it should end quietly."""

import signal


def main() -> None:
    # Python's own handler would show a traceback; harness.cli.app installs one where there is something to
    # stop.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from harness.cli.app import main as command_line

    command_line()


if __name__ == "__main__":
    main()
