"""Writes the results as Markdown: a row per case and quantity, with median and spread of the passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from compare import Measured
from memory import Memory

OURS = "bench"
SERVER_LATE_LIMIT_S = 1e-3


@dataclass(frozen=True)
class Quantity:
    """A row of the table. `of` gives the value, `factor` turns it into the unit of the title."""

    title: str
    of: Callable[[Measured], float | None]
    factor: float = 1.0
    decimals: int = 2
    is_cost: bool = True  # less is better, so a ratio to ours means something


def _part(pair: tuple[float, float] | None, index: int) -> float | None:
    return None if pair is None else pair[index]


QUANTITIES = (
    Quantity("TTFT error p50, ms", lambda m: _part(m.ttft_error_s, 0), 1e3, 3),
    Quantity("TTFT error p99, ms", lambda m: _part(m.ttft_error_s, 1), 1e3, 3),
    Quantity("ITL error p99, ms", lambda m: _part(m.itl_error_s, 1), 1e3, 3),
    Quantity("E2E error p99, ms", lambda m: _part(m.e2e_error_s, 1), 1e3, 3),
    Quantity("CPU per token, us", lambda m: m.cpu_s_per_token, 1e6, 1),
    Quantity("start to first request, s", lambda m: m.start_s, 1.0, 2),
    Quantity("largest memory, MB", lambda m: m.max_rss_bytes, 1e-6, 0),
    Quantity("tokens/s reached", lambda m: m.tokens_per_s, 1.0, 0, is_cost=False),
    Quantity("requests, failed or unpaired", lambda m: m.failed + m.unpaired, 1.0, 0, is_cost=False),
)


def markdown(measured: Sequence[Measured], program: str) -> str:
    """Return one table. In brackets after a baseline's value is how many times ours it is."""
    clients = list(dict.fromkeys(each.client for each in measured))
    cases = list(dict.fromkeys(each.case for each in measured))
    passes = 1 + max(each.number for each in measured)
    lines = [
        f"Median of {passes} passes (least - most), {program} reference server; [x ratio to {OURS}].",
        "",
        "| streams x tokens/s | what | " + " | ".join(clients) + " |",
        "| --- | --- |" + " --- |" * len(clients),
    ]
    for case in cases:
        for quantity in QUANTITIES:
            values = [_values(measured, case, client, quantity) for client in clients]
            ours = _values(measured, case, OURS, quantity)
            shown = [
                _cell(each, ours if client != OURS else [], quantity)
                for client, each in zip(clients, values, strict=True)
            ]
            lines.append(f"| {case} | {quantity.title} | " + " | ".join(shown) + " |")
    late = [(f"{each.case} in pass {each.number + 1}", _part(each.server_late_s, 1)) for each in measured]
    return "\n".join([*lines, *late_note(late)])


def late_note(late_s: Sequence[tuple[str, float | None]]) -> list[str]:
    """Return the lines that say where the server itself was late (p99), by name, or none.

    The server has a core to itself, so something else ran there, or it was at its limit.
    """
    late = [name for name, each_s in late_s if (each_s or 0.0) > SERVER_LATE_LIMIT_S]
    if not late:
        return []
    where = ", ".join(dict.fromkeys(late))
    return ["", f"The server itself was over 1 ms late (p99) in {len(late)} of {len(late_s)}: {where}."]


def _values(measured: Sequence[Measured], case: str, client: str, quantity: Quantity) -> list[float]:
    found = (quantity.of(each) for each in measured if (each.case, each.client) == (case, client))
    return [value * quantity.factor for value in found if value is not None]


def _cell(values: Sequence[float], ours: Sequence[float], quantity: Quantity) -> str:
    if not values:
        return "-"
    shown = f"{median(values):,.{quantity.decimals}f}"
    if len(values) > 1 and min(values) != max(values):
        shown += f" ({min(values):,.{quantity.decimals}f} - {max(values):,.{quantity.decimals}f})"
    if ours and quantity.is_cost and median(ours) > 0:
        ratio = median(values) / median(ours)
        shown += f" [x {ratio:,.0f}]" if ratio >= 100 else f" [x {ratio:.3g}]"
    return shown


def memory_table(memory: Memory) -> str:
    """Return a table of the memory after parts of the requests."""
    lines = [
        f"{memory.requests:,} requests in {memory.took_s:,.0f} s",
        "",
        "| share of the requests | resident memory, MB |",
        "| --- | --- |",
    ]
    lines += [f"| {share:.0%} | {memory.at(share) / 1e6:,.1f} |" for share in (0.1, 0.5, 1.0)]
    return "\n".join([*lines, f"| the most | {memory.most_bytes / 1e6:,.1f} |"])
