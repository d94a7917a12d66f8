"""Runs a command whose stderr is a terminal, as a person has it, for tests."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_READ_BYTES = 65536


@dataclass(frozen=True)
class Ended:
    """A command that has ended. `shown` is all that it drew, in order, with its escape sequences."""

    code: int
    stdout: str
    shown: str

    @property
    def words(self) -> str:
        """Return what was drawn without escape sequences: every state of what was redrawn."""
        return _ESCAPES.sub("", self.shown)


def on_terminal(
    argv: Sequence[object],
    cwd: Path,
    environment: dict[str, str],
    columns: int = 80,
    on_text: Callable[[str, subprocess.Popen[str]], None] = lambda shown, process: None,
    typed: str = "",
) -> Ended:
    """Run a command to its end. Call `on_text` with all that was drawn so far whenever there is more.

    With `typed`, its stdin is the terminal too, on which this is typed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    # Its output goes to a file, since a pipe that nobody reads yet would be full.
    with TemporaryFile("w+") as output, subprocess.Popen(
        list(map(str, argv)), cwd=cwd, env={**environment, "TERM": "xterm-256color"},
        stdin=theirs if typed else subprocess.DEVNULL, stdout=output, stderr=theirs, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, typed.encode())
        try:
            shown = bytearray()
            while piece := _read(ours):
                shown += piece
                on_text(shown.decode(errors="replace"), process)
            process.wait()
            output.seek(0)
            stdout = output.read()
        finally:
            process.kill()
            os.close(ours)
    return Ended(process.returncode, stdout, shown.decode())


def _read(terminal: int) -> bytes:
    """Return the next bytes, or none once no process writes to the terminal any more."""
    try:
        return os.read(terminal, _READ_BYTES)
    except OSError:
        return b""
