"""Computes the errors and the cost of each client, and writes the table: a row for each client and load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pinned
from clients import Case, Reported
from table import late_note
from tools import WITHOUT_GAPS, Peer

from serving_bench.harness.selftest.known_error import quantiles
from serving_bench.harness.selftest.sends import Served


@dataclass(frozen=True)
class Figures:
    """One client under one load, once.

    An error is (of p50, of p99): the client's percentile less the server's, without its sign. `counted` is
    the number of requests that succeeded by the client's own report, `sent` of those that reached the server.
    """

    peer: str
    streams: int
    ttft_error_s: tuple[float, float]
    itl_error_s: tuple[float, float]
    cpu_s_per_token: float
    memory_bytes: int
    start_s: float
    counted: int
    sent: int
    server_late_s: float


def figures(
    peer: Peer, case: Case, said: Sequence[Reported], answers: Mapping[str, Served], cost: pinned.Cost
) -> Figures:
    """Compare the percentiles of a client with those of the server, over all requests, the first ones too.

    Raises ValueError if no request of the client succeeded, or if it played something else.
    """
    good = [each for each in said if each.is_ok]
    whole = [each for each in answers.values() if each.sent_ns and each.ended_ns is not None]
    lengths = Counter(len(each.sent_ns) for each in whole)
    if lengths.most_common(1)[:1] != [(case.tokens, lengths[case.tokens])]:
        raise ValueError(f"its answers have {sorted(lengths)} tokens, not {case.tokens}")
    first_ns = min(each.arrived_ns for each in answers.values() if each.arrived_ns is not None)
    last_ns = max(each.ended_ns for each in whole if each.ended_ns is not None)
    tokens = sum(len(each.sent_ns) for each in answers.values())
    late = [sent - due for each in whole for sent, due in zip(each.sent_ns, each.due_ns, strict=True)]
    return Figures(
        peer=peer.name,
        streams=case.streams,
        ttft_error_s=_apart(
            (each.chunk_ns[0] - each.start_ns for each in good),
            (each.sent_ns[0] - (each.arrived_ns or 0) for each in whole),
        ),
        itl_error_s=_apart(_gaps(each.chunk_ns for each in good), _gaps(each.sent_ns for each in whole)),
        cpu_s_per_token=(cost.cpu_before_s(last_ns) - cost.cpu_before_s(first_ns)) / tokens,
        memory_bytes=cost.max_pss_bytes,
        start_s=(first_ns - cost.spawned_ns) / 1e9,
        counted=len(good),
        sent=len(answers),
        server_late_s=_quantiles_s(late)[1],
    )


def _gaps(instants_ns: Iterable[Sequence[int]]) -> Iterable[int]:
    return (after - before for each in instants_ns for before, after in pairwise(each))


def _apart(here_ns: Iterable[int], there_ns: Iterable[int]) -> tuple[float, float]:
    here, there = _quantiles_s(here_ns), _quantiles_s(there_ns)
    return abs(here[0] - there[0]), abs(here[1] - there[1])


def _quantiles_s(values_ns: Iterable[int]) -> tuple[float, float]:
    found = quantiles(value / 1e9 for value in values_ns)
    if found is None:
        raise ValueError("no request succeeded")
    return found


@dataclass(frozen=True)
class Column:
    """A column of the table, in the unit of its title. Less is better."""

    title: str
    of: Callable[[Figures], float]
    decimals: int

    def values(self, passes: Iterable[Figures]) -> list[float]:
        """Return the values rounded as they are shown, so that values that look equal are equal."""
        return [round(self.of(each), self.decimals) for each in passes]


COLUMNS = (
    Column("TTFT error p50, ms", lambda each: each.ttft_error_s[0] * 1e3, 2),
    Column("TTFT error p99, ms", lambda each: each.ttft_error_s[1] * 1e3, 2),
    Column("ITL error p50, ms", lambda each: each.itl_error_s[0] * 1e3, 2),
    Column("ITL error p99, ms", lambda each: each.itl_error_s[1] * 1e3, 2),
    Column("CPU per token, us", lambda each: each.cpu_s_per_token * 1e6, 1),
    Column("memory, MB", lambda each: each.memory_bytes / 1e6, 0),
    Column("start to first request, s", lambda each: each.start_s, 2),
)


def markdown(
    peers: Sequence[Peer],
    streams: Sequence[int],
    measured: Sequence[Figures],
    sizes: Mapping[str, int],
    failures: Mapping[tuple[str, int | None], str],
) -> str:
    """Return the table. The best client of a load is bold, and so is each that passes do not tell from it.

    `sizes`: bytes of each peer's environment. `failures`: why a peer has no values under a load, or under all
    loads (None).
    """
    titles = [column.title for column in COLUMNS]
    heads = ["streams", "client", *titles, "install, MB", "successful of sent requests"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for load in streams:
        whys = {peer.name: failures.get((peer.name, load), failures.get((peer.name, None))) for peer in peers}
        passes = {name: [] if why else _of(measured, name, load) for name, why in whys.items()}
        best = [_best(passes.values(), column) for column in COLUMNS]
        for peer in peers:
            shown = _cells(peer, passes[peer.name], best, whys[peer.name])
            size = f"{sizes[peer.name] / 1e6:,.0f}" if peer.name in sizes else "-"
            counted = ", ".join(f"{each.counted} of {each.sent}" for each in passes[peer.name]) or "-"
            row = [str(load), f"[{peer.title}]({peer.page})", *shown, size, counted]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, *_notes(peers, measured)])


def _of(measured: Sequence[Figures], peer: str, streams: int) -> list[Figures]:
    return [each for each in measured if (each.peer, each.streams) == (peer, streams)]


def _cells(
    peer: Peer, passes: Sequence[Figures], best: Sequence[float | None], why: str | None
) -> Iterator[str]:
    """Yield the cell of each of COLUMNS; if the peer failed, the first says why."""
    for number, (column, least) in enumerate(zip(COLUMNS, best, strict=True)):
        if why:
            yield "-" if number else f"not measured: {why}"
        else:
            mark = " *" if peer.name in WITHOUT_GAPS and column.title.startswith("ITL") else ""
            yield _cell(passes, column, least) + mark


def _best(loads: Iterable[Sequence[Figures]], column: Column) -> float | None:
    """Return the highest pass of the client with the lowest median."""
    values = [column.values(load) for load in loads if load]
    return max(min(values, key=median)) if values else None


def _cell(passes: Sequence[Figures], column: Column, best: float | None) -> str:
    values = column.values(passes)
    if not values or best is None:
        return "-"
    ends = dict.fromkeys(f"{value:,.{column.decimals}f}" for value in (min(values), max(values)))
    shown = " - ".join(ends)
    return f"**{shown}**" if min(values) <= best else shown


def _notes(peers: Sequence[Peer], measured: Sequence[Figures]) -> Iterable[str]:
    if any(peer.name in WITHOUT_GAPS for peer in peers):
        yield "\n\\* This client's file has no time for each token, so a request's tokens are spread evenly."
    late = [(f"{each.streams} streams of {each.peer}", each.server_late_s) for each in measured]
    yield from late_note(late)
