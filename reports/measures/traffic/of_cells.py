"""Compute the values that a cell has only because of its scenario or load.

Only values in this file count requests of users who would leave; elsewhere they would favour quick answers.
"""

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import timing
from serving_bench.reports.data import Cell, Run, floats, once, sent_in_window
from serving_bench.reports.measures.metrics import LOST_SHARE, NOT_FAILED, Value, is_supported
from serving_bench.reports.measures.traffic.validity import valid_values

# --- prefill and decode rates: llama-bench's pp and tg ----------------------------------------------


_OF_RATES = (
    "ttft_s",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "first_content_ns",
    "last_content_ns",
)


def rate_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return both rates of a cell. Tokens that the server does not report as cached count as read."""
    ok = run.ok_requests(cell.number, *_OF_RATES)
    # The decode time of an answer that came in one piece is unknown.
    is_timed = (ok["output_tokens"] > 1) & (ok["last_content_ns"] > ok["first_content_ns"])
    several = ok[is_timed.fillna(False).astype(bool)]
    begun = ok[ok["ttft_s"].notna() & ok["input_tokens"].notna()]
    read = floats(begun["input_tokens"]) - floats(begun["cached_tokens"].fillna(0))
    generated = floats(several["output_tokens"]) - 1
    made_s = (floats(several["last_content_ns"]) - floats(several["first_content_ns"])) / 1e9
    return {
        "prefill_tokens_per_s": rate(read.sum(), begun["ttft_s"].sum(), len(begun)),
        "decode_tokens_per_s": rate(generated.sum(), made_s.sum(), len(several)),
    }


def rate(count: float, seconds: float, n: int) -> Value:
    """Return a count per second over n requests; None if no time passed."""
    return Value(float(count / seconds) if seconds > 0 else None, n)


def ended_per_s(cell: Cell, requests: pd.DataFrame) -> Value:
    """Return how many of these requests per second were ok and ended in a cell's window, whether their user
    stays or not."""
    if cell.window_ns is None or cell.window_s is None:
        return Value(None, 0)
    begin_ns, end_ns = cell.window_ns
    inside = (requests["outcome"] == "ok") & requests["end_ns"].between(begin_ns, end_ns, inclusive="left")
    return Value(int(inside.sum()) / cell.window_s, int(inside.sum()))


# --- many requests at once: a batch, and what follows a burst ---------------------------------------


_QUIET, _BURST = 0, 1  # groups of scenarios/burst.py


def batch_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return a batch's makespan and tokens per second; unknown if too many requests failed."""
    requests = run.cell_requests(cell.number)
    if too_many_failed(run, cell):
        return dict.fromkeys(("makespan_s", "batch_tokens_per_s"), Value(None, len(requests)))
    ok = requests[requests["outcome"] == "ok"]
    seconds = (
        float(requests["end_ns"].max() - requests["sent_ns"].min()) / 1e9
        if requests["sent_ns"].notna().any()
        else 0.0
    )
    tokens = floats(ok["input_tokens"]).sum() + floats(ok["output_tokens"]).sum()
    return {
        "makespan_s": Value(seconds or None, len(requests)),
        "batch_tokens_per_s": rate(tokens, 0.0 if np.isnan(tokens) else seconds, len(ok)),
    }


def burst_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return how long after a burst the requests in flight were down to the most before it; unknown if too
    many failed."""
    requests = run.requests_with(cell.number, "group").dropna(subset=["sent_ns", "group"])
    group, sent_ns, end_ns = (floats(requests[name]) for name in ("group", "sent_ns", "end_ns"))
    quiet, burst = group == _QUIET, group == _BURST
    if not quiet.any() or not burst.any() or too_many_failed(run, cell):
        return {"recovery_s": Value(None, 0)}
    begin_ns, last_ns = floats(requests["scheduled_ns"])[burst].min(), sent_ns.max()
    before = _in_flight(sent_ns[quiet], end_ns[quiet], sent_ns[quiet]).max()
    looks_ns = np.sort(end_ns[(end_ns > sent_ns[burst].max()) & (end_ns <= last_ns)])
    calm_ns = looks_ns[_in_flight(sent_ns, end_ns, looks_ns) <= before]
    seconds = (calm_ns[0] - begin_ns) / 1e9 if len(calm_ns) else None
    return {"recovery_s": Value(seconds, int(burst.sum()))}


def too_many_failed(run: Run, cell: Cell) -> bool:
    """Return whether more than LOST_SHARE of a cell's requests failed, so that it did less work."""
    failed = ~run.cell_requests(cell.number)["outcome"].isin(NOT_FAILED)
    return bool(failed.mean() > LOST_SHARE)


def _in_flight(sent_ns: np.ndarray, end_ns: np.ndarray, at_ns: np.ndarray) -> np.ndarray:
    """Return how many requests were in flight at these instants, without those that end just then."""
    begun = np.searchsorted(np.sort(sent_ns), at_ns, side="right")
    return np.asarray(begun - np.searchsorted(np.sort(end_ns), at_ns, side="right"))


# --- the cost of a prompt's depth -------------------------------------------------------------------


# A parabola fits any three points.
DEPTHS_NEEDED = 4


@once
def by_number(run: Run, cell: Cell) -> dict[int, dict[str, Value]]:
    """Return the medians of ttft_s, tpot_s and read_tokens (input tokens not from a cache) over a cell's ok
    requests, by the scenario's `group`. Medians of few requests are included, with their n."""
    requests = run.ok_requests_with(cell.number, "group")
    requests = requests.assign(
        read_tokens=requests["input_tokens"] - requests["cached_tokens"].fillna(0)
    ).dropna(subset="group")
    return {
        int(cast(int, number)): {name: _median(rows[name]) for name in ("ttft_s", "tpot_s", "read_tokens")}
        for number, rows in requests.groupby("group")
    }


def _median(values: "pd.Series[float]") -> Value:
    present = floats(values.dropna())
    return Value(float(np.median(present)) if len(present) else None, len(present))


def depth_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the rates of a cell and the quadratic part of its TTFT."""
    depths = by_number(run, cell).values()
    pairs = [(each["read_tokens"].value, each["ttft_s"].value) for each in depths]
    timed = [(tokens, seconds) for tokens, seconds in pairs if tokens and seconds]
    share = quadratic_share(*np.array(timed).T) if len(timed) >= DEPTHS_NEEDED else None
    n = sum(each["ttft_s"].n for each in depths)
    return {**rate_values(run, cell), "quadratic_share": Value(share, n)}


def quadratic_share(tokens: np.ndarray, seconds: np.ndarray) -> float:
    """Return c n^2 / (a + b n + c n^2) at the largest n, fitted by least squares of relative errors, so that
    short and long depths count equally."""
    terms = np.vander(tokens / tokens.max(), 3, increasing=True)
    fitted, *_ = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(seconds)))
    return float(fitted[2] / fitted.sum())


# --- agents: a task is a conversation, a step is a turn ---------------------------------------------


def task_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the speed of a cell's steps and tasks, the share of tasks finished, and that of valid answers.

    Without the number of turns of a conversation, as in older runs, nothing is known of tasks.
    """
    requests = run.requests_with(cell.number, "turns")
    requests = requests[requests["part"] == 0]  # a request sent in parallel may fail without ending the task
    is_ok, is_failed = requests["outcome"] == "ok", ~requests["outcome"].isin(NOT_FAILED)
    tasks = (
        requests.assign(is_ok=is_ok, is_failed=is_failed, begin_ns=requests[timing.origin_of(cell.load)])
        .groupby("conversation")
        .agg(
            # Rows are in order of sending.
            in_window=("in_window", "first"),
            begin_ns=("begin_ns", "min"),
            end_ns=("end_ns", "max"),
            last=("turn", "max"),
            turns=("turns", "max"),
            is_ok=("is_ok", "all"),
            is_failed=("is_failed", "any"),
        )
    )
    tasks = tasks[tasks["in_window"].fillna(False).astype(bool)]
    tasks = tasks[tasks["turns"].notna()]
    done = tasks[tasks["is_ok"] & (tasks["last"] + 1 == tasks["turns"])]
    ended = len(done) + int(tasks["is_failed"].sum())
    took_s = (floats(done["end_ns"]) - floats(done["begin_ns"])) / 1e9
    return {
        "task_s": Value(float(took_s.mean()) if len(done) else None, len(done)),
        "finished_share": Value(len(done) / ended if ended else None, ended),
        "steps_per_s": ended_per_s(cell, requests),
        **valid_values(run, cell),
    }


# --- reasoning before an answer ---------------------------------------------------------------------


def thinking_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the time to the first answer token of a cell's requests, and the share of chunks before it."""
    requests = run.ok_requests_with(cell.number, "first_answer_ns", "reasoning_chunks", "chunks")
    # Older runs have neither column. A request without reasoning has 0 reasoning chunks.
    requests = requests[requests[["first_answer_ns", "reasoning_chunks"]].notna().any(axis=1)]
    seconds = (floats(requests["first_answer_ns"]) - floats(requests[timing.origin_of(cell.load)])) / 1e9
    # A request that ended while it was still thinking counts as later than all others.
    seconds[np.isnan(seconds)] = np.inf
    median = float(np.median(seconds)) if is_supported(50, len(requests)) else np.inf
    chunks, thought = int(requests["chunks"].sum()), int(requests["reasoning_chunks"].sum())
    return {
        "first_answer_s": Value(median if np.isfinite(median) else None, len(requests)),
        "thinking_share": Value(thought / chunks if chunks else None, len(requests)),
    }


# --- users who leave before an answer ends ----------------------------------------------------------


def left_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return how a cell's requests fared whose users leave, and how many of all were answered per second."""
    requests = run.requests_with(cell.number, "chunks")
    answered = ended_per_s(cell, requests)
    requests = requests[requests["in_window"].fillna(False).astype(bool)]
    chunks = requests.groupby("outcome")["chunks"].sum()
    wasted, used = int(chunks.get("left", 0)), int(chunks.get("ok", 0))
    left, n = int((requests["outcome"] == "left").sum()), len(requests)
    impatient = requests[~requests["stays"].astype(bool)]
    in_time = int((impatient["outcome"] == "ok").sum())
    return {
        "left_share": Value(left / n if n else None, n),
        "in_time_share": Value(in_time / len(impatient) if len(impatient) else None, len(impatient)),
        "wasted_share": Value(wasted / (wasted + used) if wasted + used else None, n),
        "answered_per_s": answered,
    }


# --- adapters ---------------------------------------------------------------------------------------


def adapter_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the share of a cell's requests that were sent right after one for another adapter."""
    requests = sent_in_window(run.requests_with(cell.number, "group").dropna(subset=["sent_ns", "group"]))
    adapters = floats(requests.sort_values("sent_ns")["group"])
    n = max(len(adapters) - 1, 0)
    return {"swap_share": Value(float((adapters[1:] != adapters[:-1]).mean()) if n else None, n)}


# --- by scenario and load ---------------------------------------------------------------------------


_OF_SCENARIOS: Mapping[str, Callable[[Run, Cell], dict[str, Value]]] = {
    "agent_loop": task_values,
    "burst": burst_values,
    "code_completion": left_values,
    "fixed": rate_values,
    "long_context": depth_values,
    "lora_mix": adapter_values,
    "reasoning": thinking_values,
    "structured_output": valid_values,
}


def traffic_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the values of a completed cell that only its scenario or load has, named by TRAFFIC_METRICS."""
    of_scenario = _OF_SCENARIOS.get(cell.planned.scenario.name)
    return {
        **(of_scenario(run, cell) if of_scenario else {}),
        **(batch_values(run, cell) if cell.load.kind == "batch" else {}),
    }
