"""Measures the error and the cost of the load generator beside plain Locust. A server with known send times
has one core; the clients run on another, one after the other, in several passes.

    python benchmarks/load.py                      all cases, three passes, about eleven minutes
    python benchmarks/load.py --memory 1000000     the load process's memory over that many requests

README.md has the results and what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pinned
import script
import server
from clients import CLIENTS, WARMUP_S, Case, Client, Reported
from compare import Measured, compare
from memory import measure_memory
from table import markdown, memory_table

from serving_bench.harness.errors import BenchError
from serving_bench.harness.selftest.selftest import Reference
from serving_bench.harness.selftest.sends import Served, read_sends, served

# How long a client may take to start, drain and write, beside its load.
SLACK_S = 90.0
CASES = (
    Case(64, 100, 8.0),
    Case(256, 100, 8.0),
    Case(256, 400, 6.0),
    Case(256, 800, 6.0),
    Case(4096, 10, 14.0),
)


def measure(client: Client, case: Case, number: int, reference: Reference) -> Measured:
    """Run one client against a fresh server, and compare what both say."""
    with played(client, case, reference) as (said, answers, cost):
        return compare(client.name, case, number, said, answers, cost)


@contextmanager
def played(
    client: Client, case: Case, reference: Reference
) -> Iterator[tuple[list[Reported], dict[str, Served], pinned.Cost]]:
    """Run one client against a fresh server. Yield what both say and what the client cost.

    Raises BenchError if the client fails.
    """
    # In memory where possible: a slow disk would hold up the server, which writes its record.
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bench-load-", dir=parent) as folder:
        scratch = Path(folder)
        with server.serving(
            reference, scratch, itl_s=1 / case.tokens_per_s, ttft_s=0.05, slots=case.streams + 1
        ) as url:
            cost = pinned.run(
                client.argv(case, url, scratch),
                server.CLIENT_CORE,
                scratch / "client.log",
                limit_s=WARMUP_S + case.window_s + case.request_s + SLACK_S,
                environment=client.environment(case, scratch),
            )
        if cost.exit_code not in client.good_codes:
            said = (scratch / "client.log").read_text(errors="replace")[-2000:]
            raise BenchError(f"{client.name} ended with code {cost.exit_code}: {said}")
        answers = served(read_sends(scratch / "sends.bin"))
        yield list(client.read(scratch)), answers, cost


def in_turns(
    cases: Sequence[Case], clients: Sequence[Client], passes: int
) -> Iterator[tuple[int, Case, Client]]:
    """Yield A B C, then C B A, and so on, so that drift of the machine affects all clients alike."""
    for number in range(passes):
        for case in cases:
            for client in clients if number % 2 == 0 else reversed(clients):
                yield number, case, client


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    names = [case.name.replace(" ", "") for case in CASES]
    parser.add_argument("--passes", type=int, default=3, help="3 unless given")
    parser.add_argument("--cases", nargs="+", choices=names, default=names, help="all unless given")
    parser.add_argument("--only", action="append", choices=[c.name for c in CLIENTS], help="one client")
    parser.add_argument(
        "--memory", type=int, metavar="N", help="instead: memory over N requests x 200 tokens"
    )
    parser.add_argument("--program", choices=["native", "python"], default="native", help="of the server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all passes there as JSON")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    reference = server.find(given.program)
    if given.memory:
        print(memory_table(measure_memory(reference, given.memory, server.CLIENT_CORE)))
        return
    cases = [case for case in CASES if case.name.replace(" ", "") in given.cases]
    clients = [client for client in CLIENTS if not given.only or client.name in given.only]
    measured: list[Measured] = []
    for number, case, client in in_turns(cases, clients, given.passes):
        one = measure(client, case, number, reference)
        measured.append(one)
        print(f"pass {number + 1}, {case.name}, {client.name}: {_in_short(one)}", file=sys.stderr, flush=True)
        if given.json:
            given.json.write_text(json.dumps([asdict(each) for each in measured], indent=1) + "\n")
    print(markdown(measured, reference.program))
    if not pinned.may_go_first():
        print("\nWithout root: server and clients had no more priority than what else ran.")


def _in_short(one: Measured) -> str:
    ttft = "no pair" if one.ttft_error_s is None else f"TTFT error p99 {one.ttft_error_s[1] * 1e3:.3f} ms"
    cpu = "-" if one.cpu_s_per_token is None else f"{one.cpu_s_per_token * 1e6:.1f} us/token"
    return f"{one.requests} requests, {one.failed} failed, {ttft}, {cpu}"


if __name__ == "__main__":
    script.run(main)
