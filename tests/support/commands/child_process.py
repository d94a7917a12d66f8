"""Child processes that a test tells what to do, line by line."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WAIT = "\nsys.stdin.readline()\n"  # until the test says so or goes away


@contextmanager
def child(source: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", f"import os, subprocess, sys, time\n{source}", *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[bytes], word: bytes) -> bool:
    assert process.stdout
    return process.stdout.readline().strip() == word


def tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(b"\n")
