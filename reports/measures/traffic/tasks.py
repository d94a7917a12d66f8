"""Tasks of agents: a conversation each, whose turns are its steps."""

from harness.contracts import timing
from reports.data import Cell, Run, floats
from reports.measures.metrics import NOT_FAILED, Value
from reports.measures.traffic.rates import ended_per_s
from reports.measures.traffic.validity import valid_values


def task_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return how fast steps and tasks of a cell were, how many were finished, and how many calls are valid.

    Where nobody wrote how many turns a conversation has, as in older runs, nothing is known of tasks.
    """
    own = run.requests_with(cell.number, "turns")
    own = own[own["part"] == 0]  # what is sent beside it may fail, and ends no task
    is_ok, is_failed = own["outcome"] == "ok", ~own["outcome"].isin(NOT_FAILED)
    tasks = (
        own.assign(is_ok=is_ok, is_failed=is_failed, begin_ns=own[timing.origin_of(cell.load)])
        .groupby("conversation")
        .agg(
            # The first request that was sent is the first row.
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
        "steps_per_s": ended_per_s(cell, own),
        **valid_values(run, cell),
    }
