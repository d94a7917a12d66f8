"""What servers count against what the client was told."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from harness.contracts import ServerTerm
from reports.checks.finding import BY_OBJECTIVES, TOKENS, Finding, cell_name, numbers
from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.served import grown_in_cell
from reports.measures.written import several

DIFFERS_SHARE = 0.02
DIFFERS_TOKENS = 16


@dataclass(frozen=True)
class _Client:
    """Tokens of a cell by the client's account: at least `least`, and with what requests that failed, or were
    sent twice, may have had, at most `most`."""

    least: float
    most: float


def server_counts_differ(run: Run) -> Iterator[Finding]:
    """The server's counters of tokens against the counts in its answers, over whole cells."""
    said: list[str] = []
    unlike: list[Cell] = []
    for cell in run.planned_cells:
        if cell.status == "completed" and (found := list(_differences(run, cell))):
            said += found
            unlike.append(cell)
    if said:
        yield Finding(
            "server_counts_differ",
            "The server's counters and its answers differ",
            f"Over whole cells, warm-up included: {several(said, '; ')}.",
            "Look for other clients of the server, for requests that were sent again on the way, and behind "
            "a load balancer for servers other than the one whose counters these are.",
            cells=numbers(unlike),
            metrics=("tpot_s", "input_tokens", "output_tokens", *BY_OBJECTIVES, *TOKENS),
        )


def _differences(run: Run, cell: Cell) -> Iterator[str]:
    columns = ["outcome", "output_tokens", "input_tokens", "max_tokens", "token_source", "is_resent"]
    requests = run.cell_requests(cell.number)[columns]
    accounts: dict[ServerTerm, tuple[str, _Client | None]] = {
        "generated_tokens": ("output tokens", _outputs(requests)),
        "prompt_tokens": ("prompt tokens", _prompts(requests)),
    }
    for term, (name, client) in accounts.items():
        server = grown_in_cell(run, cell, term)
        if client is None or server is None:
            continue
        nearest = min(max(server, client.least), client.most)
        if abs(server - nearest) > max(DIFFERS_SHARE * nearest, DIFFERS_TOKENS):
            which = f"{cell_name(cell)}, start {cell.planned.repeat + 1}"
            yield f"{which}: {name}: server {server:,.0f}, answers {_range(client)}"


def _range(client: _Client) -> str:
    least, most = f"{client.least:,.0f}", f"{client.most:,.0f}"
    return least if least == most else f"{least} to {most}"


def _outputs(requests: pd.DataFrame) -> _Client | None:
    """None where an answer has no count of the server's."""
    ok = requests[requests["outcome"] == "ok"]
    if not len(requests) or ok["output_tokens"].isna().any() or (ok["token_source"] != "server").any():
        return None
    least = float(ok["output_tokens"].sum())
    again = float(ok.loc[ok["is_resent"].fillna(False).astype(bool), "max_tokens"].sum())
    failed = float(requests.loc[requests["outcome"] != "ok", "max_tokens"].sum())
    return _Client(least, least + again + failed)


def _prompts(requests: pd.DataFrame) -> _Client | None:
    """None where a request failed or was sent twice: how much of its prompt was read is not known."""
    sure = (requests["outcome"] == "ok") & ~requests["is_resent"].fillna(False).astype(bool)
    if not len(requests) or not sure.all() or requests["input_tokens"].isna().any():
        return None
    tokens = float(requests["input_tokens"].sum())
    return _Client(tokens, tokens)
