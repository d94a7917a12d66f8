"""A process that has imported what `bench` imports, and forks to run it: 2 s of imports less for each call.

`python -P preloaded_bench.py SOCKET` reads one message per call from the socket with that descriptor: words,
directory and environment as JSON, the files that take stdout and stderr, and a pipe. It writes the new
process's id and then its exit code to the pipe. It ends when the other end of the socket is closed.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys

from serving_bench.__main__ import main
from serving_bench.harness.cli.app import COMMANDS

# What commands import once they know what to do.
_LATER = (
    "serving_bench.reports.outputs.writing",
    "serving_bench.reports.words.report",
    "pydantic.type_adapter",
)


def serve(requests: socket.socket) -> None:
    """Take calls until there can be no further one. Also returns in each process that is to run bench."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for a bench are not waited for
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            sys.exit()
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    requests.close()
    call, (stdout, stderr, answer) = json.loads(message), descriptors
    if process := os.fork():
        os.write(answer, b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        os.write(answer, b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    for opened, number in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(opened, number)
        os.close(opened)
    os.close(answer)
    os.chdir(call["directory"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = ["bench", *call["words"]]


if __name__ == "__main__":
    rooms = {command.function.partition(":")[0] for command in COMMANDS.values()}
    for name in (*(f"serving_bench.harness.cli.commands.{room}" for room in rooms), *_LATER):
        importlib.import_module(name)
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    main()
