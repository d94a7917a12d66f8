"""Measures bench beside other load generators, each in its own environment, against a server with known send
times.

    make peers                                     all, about 12 minutes once everything is installed
    make peers PEERS="--only aiperf,bench --streams 16"

Prints a table. A run of all clients and loads also writes it into README.md, which explains the columns.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import script
import server
from clients import Case
from load import in_turns, played
from rows import Figures, figures, markdown
from tools import Peer, client_of, peers, python_for, size_bytes

from serving_bench.harness.contracts import FOREIGN_SHARE
from serving_bench.harness.errors import BenchError
from serving_bench.harness.sampling import environment, host
from serving_bench.harness.selftest.selftest import Reference
from serving_bench.harness.whole_files import write_whole

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
STREAMS = (16, 64, 256)
TOKENS_PER_S = 100
WINDOW_S = 5.0
PASSES = 2
_MOST_WHY = 200


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    known = peers()
    parser.add_argument(
        "--only", type=_peers, default=tuple(known.values()), help=f"of {','.join(known)}; all unless given"
    )
    parser.add_argument("--streams", type=_streams, default=STREAMS, help="such as 16,64; all unless given")
    parser.add_argument("--passes", type=int, choices=range(1, 10), default=PASSES, help="2 unless given")
    return parser.parse_args(words)


def _peers(text: str) -> tuple[Peer, ...]:
    known, asked = peers(), text.split(",")
    if unknown := [name for name in asked if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    return tuple(peer for name, peer in known.items() if name in asked)


def _streams(text: str) -> tuple[int, ...]:
    asked = tuple(int(word) for word in text.split(",") if word.isdecimal() and 0 < int(word) <= 4096)
    if len(asked) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text}: give numbers from 1 to 4096, such as 16,64")
    return asked


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, (BenchError, OSError, ValueError)) else repr(error)


def reason(error: Exception) -> str:
    """Return a program's words from its last line that names an error on, escaped for a table's cell."""
    lines = [line for line in (each.strip(" │╭╰─╮╯") for each in _said(error).splitlines()) if line]
    named = [at for at, line in enumerate(lines) if "error" in line.lower()] or [-1]
    return (" ".join(lines[named[-1] :]) or type(error).__name__)[:_MOST_WHY].replace("|", "\\|")


def measure(
    asked: Sequence[Peer], streams: Sequence[int], passes: int, reference: Reference
) -> tuple[list[Figures], dict[str, int], dict[tuple[str, int | None], str]]:
    """Install and run all peers. Return figures, bytes of each environment, and why figures are missing."""
    pythons: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    failures: dict[tuple[str, int | None], str] = {}
    for peer in asked:
        try:
            pythons[peer.name] = python_for(peer)
            sizes[peer.name] = size_bytes(pythons[peer.name])
        except Exception as error:  # whatever a peer does costs only its row
            failures[peer.name, None] = reason(error)
    cases = [Case(each, TOKENS_PER_S, WINDOW_S) for each in streams]
    ready = {peer.title: peer for peer in asked if peer.name in pythons}
    clients = [client_of(peer, pythons[peer.name]) for peer in ready.values()]
    measured: list[Figures] = []
    for number, case, client in in_turns(cases, clients, passes):
        peer, what = ready[client.name], f"pass {number + 1}, {case.streams} streams, {client.name}"
        try:
            with played(client, case, reference) as (said, answers, cost):
                measured.append(figures(peer, case, said, answers, cost))
        except Exception as error:  # as above
            failures[peer.name, case.streams] = reason(error)
            print(f"{what}: {_said(error)}", file=sys.stderr, flush=True)
        else:
            print(f"{what}: {measured[-1]}", file=sys.stderr, flush=True)
    return measured, sizes, failures


def preface(passes: int, program: str, foreign_share: float | None) -> str:
    """Return when, where and by which bench this was measured, and warn unless it was known to be quiet."""
    known = environment.facts()
    facts, bench = known["machine"], f"bench {known['packages']['serving-bench']} ({known['git_commit']})"
    memory = f"{int(facts['memory_bytes'] or 0) / 2**30:.0f} GiB"
    where = f"{facts['cpu_model']}, {facts['cores_usable']} cores, {memory}, {facts['kernel']}"
    share = "not known" if foreign_share is None else f"{foreign_share:.0%}"
    said = f"{date.today()}, {where}, Python {facts['python']}, {bench}, {program} server, {passes} passes."
    load = f"Other programs used {share} of the processor meanwhile."
    if foreign_share is not None and foreign_share <= FOREIGN_SHARE:
        return f"{said} {load}\n"
    warning = f"The machine was not known to be quiet, so this says little. {load} Run `make peers` again."
    return f"{said}\n\n**{warning}**\n"


def main() -> None:
    given = arguments(sys.argv[1:])
    reference = server.find("native")
    os.environ.pop("PYTHONPATH", None)  # it is for this program, not for those that it runs
    share = host.foreign_use()
    measured, sizes, failures = measure(given.only, given.streams, given.passes, reference)
    text = preface(given.passes, reference.program, share()) + "\n"
    text += markdown(given.only, given.streams, measured, sizes, failures) + "\n"
    print(text)
    if (given.only, given.streams) == (tuple(peers().values()), STREAMS):
        before, _, rest = README.read_text().partition(BEGIN)
        write_whole(README, (before + BEGIN + text + END + rest.partition(END)[2]).encode())


if __name__ == "__main__":
    script.run(main)
