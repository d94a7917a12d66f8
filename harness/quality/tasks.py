"""Ask a running server the items of tasks with lm-evaluation-harness (lm_eval) in its own environment.

`provide_tasks` finds what the tasks need before a run begins. `ask_tasks` asks one server and stores each
answer with its score in tasks.parquet. engines/inside/ask_tasks.py loads tasks and scores answers.
"""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from serving_bench.engines import TASKS_PROGRAM, TOOLS
from serving_bench.harness.contracts import Item, Workshop, masked, masked_bytes, masked_known, secret_names
from serving_bench.harness.errors import UserError, choose_from
from serving_bench.harness.install.install import python_of
from serving_bench.harness.processes.supervise import supervised
from serving_bench.harness.quality import items
from serving_bench.harness.store.named_files import TASKS_FILE
from serving_bench.harness.store.quality_table import write_items

# lm_eval reads some ten thousand task files before it can load one of its tasks.
LOADING_S = 300.0
KEY_VARIABLE = "BENCH_TASKS_KEY"
LOG_NAME = "tasks.log"
ROWS_NAME = "tasks.jsonl"
_MOST_LOG_BYTES = 4 << 20


@dataclass(frozen=True)
class _Own:
    """A task of bench's own: the arguments of own_task in engines/inside/ask_tasks.py."""

    items: Sequence[items.Question]
    most_tokens: int


# difflib's ratio, 1 for equal names: cmmlu and kmmlu, which lm_eval has, are 0.89 like mmlu. Misspelt names
# such as gsm-8k and bench-basic are more alike.
_NEAR = 0.9
# Bench's own tasks: a function that returns the items, and the most tokens of an answer.
_OWN: Mapping[str, tuple[Callable[[Workshop], Sequence[items.Question]], int]] = {
    "bench-basics": (lambda workshop: items.basics(), 48),
    "gsm8k": (lambda workshop: items.gsm8k(_packed(workshop)), 512),
    "mmlu": (lambda workshop: items.mmlu(_packed(workshop)), 16),
}


@dataclass(frozen=True)
class Tasks:
    """Tasks that can be asked. `own`: items by name, or None if lm_eval has them. `python` has lm_eval."""

    python: Path
    own: Mapping[str, _Own | None]


@dataclass(frozen=True)
class TasksServer:
    """A server that tasks can be asked of.

    `base_url` ends in /v1. `fields` are sent with each request, beside model, messages, max_tokens,
    temperature and stop. `in_flight`: requests at once.
    """

    base_url: str
    model: str
    fields: Mapping[str, Any]
    in_flight: int
    key: str | None = None


class _Line(msgspec.Struct):
    task: str
    items: int | None = None
    row: Item | None = None
    failed: str | None = None


def check_tasks(names: Iterable[str]) -> None:
    """Raise UserError for a file that does not exist, and for a misspelt name of one of bench's own tasks.

    Any other name may be one of lm_eval's: none of those begins with bench or is that similar.
    """
    for name in names:
        if "/" in name or name.endswith((".yaml", ".yml")):
            if not Path(name).is_file():
                raise UserError(f"quality.tasks={name}: there is no such file; give a task's YAML, or a name")
        elif name not in _OWN:
            near = difflib.get_close_matches(name.lower().replace("_", "-"), _OWN, cutoff=_NEAR)
            if near or name.lower().startswith("bench"):
                raise UserError(f"quality.tasks={name}: no such task; {choose_from(name, _OWN)}")


def provide_tasks(names: Sequence[str], workshop: Workshop) -> Tasks:
    """Find or install lm_eval, and load the items of tasks. Blocks.

    Raises MissingError, and UserError for a task that cannot be asked.
    """
    if named := [name for name in names if name not in _OWN]:
        workshop.line(
            f"quality.tasks={','.join(named)}: not bench's own ({', '.join(_OWN)}), so lm_eval is asked"
        )
    python = python_of(workshop.tool(TOOLS["lm_eval"]))
    own_tasks = {
        name: _Own(_OWN[name][0](workshop), _OWN[name][1]) if name in _OWN else None for name in names
    }
    others = {name: None for name, task in own_tasks.items() if task is None}
    if others:
        with TemporaryDirectory() as folder:
            problem = _run(Tasks(python, others), None, Path(folder), LOADING_S)
            lines, _ = _taken(Path(folder) / ROWS_NAME)
        failed = next((f"quality.tasks={line.task}: {line.failed}" for line in lines if line.failed), None)
        if failed or problem:
            raise UserError(failed or f"quality.tasks={','.join(others)}: {problem}")
    return Tasks(python, own_tasks)


def _packed(workshop: Workshop) -> Path:
    return next(workshop.tool(TOOLS["task_items"]).glob("lib/python*/site-packages/frugal_llm/tasks"))


def ask_tasks(
    tasks: Tasks, server: TasksServer, limit_s: float, folder: Path, state_dir: Path | None = None
) -> str | None:
    """Ask a server all items, write tasks.parquet in the folder, and return a clause on what is missing.

    Returns None if nothing is. Blocks while lm_eval loads (its output goes to tasks.log) and then for limit_s
    at most, of which each task gets an equal share. Items without an answer are in the table too. After an
    interrupt, which passes through, the table has the answers until then.
    """
    job = {**msgspec.to_builtins(server), "limit_s": limit_s}
    key = job.pop("key")
    try:
        problem = _run(tasks, job, folder, LOADING_S + limit_s, key, state_dir)
    finally:
        lines, unread = _taken(folder / ROWS_NAME, key)
        rows = _rows(lines)
        write_items(folder / TASKS_FILE, rows)
    failed = [f"{line.task}: {line.failed}" for line in lines if line.failed]
    ended = [problem] if problem else []
    return "; ".join([*failed, *unread, *unanswered(rows), *_unasked(lines, rows), *ended]) or None


def unanswered(rows: Sequence[Item]) -> list[str]:
    """Return a clause for each task and reason for which items have no score."""
    counts = Counter((row.task, row.error) for row in rows if row.error)
    total = Counter(row.task for row in rows)
    return [
        f"{task}: {n} of {total[task]} items without a score ({why})" for (task, why), n in counts.items()
    ]


def _unasked(lines: Sequence[_Line], rows: Sequence[Item]) -> list[str]:
    """Return a clause for each task that was cut off before all of its items were asked."""
    counts = Counter(row.task for row in rows)
    return [
        f"{line.task}: {line.items - counts[line.task]} of {line.items} items not asked"
        for line in lines
        if line.items and line.items > counts[line.task]
    ]


def _rows(lines: Sequence[_Line]) -> list[Item]:
    """Return the last row of each item, in order: it has the score if lm_eval got that far."""
    rows = dict[tuple[str, str], Item]()
    for row in (line.row for line in lines if line.row):
        rows.pop((row.task, row.item), None)
        rows[row.task, row.item] = row
    return list(rows.values())


def _taken(path: Path, key: str | None = None) -> tuple[list[_Line], list[str]]:
    """Read and remove the program's output. Return its lines without the key, and a clause on damaged ones.

    Skips an incomplete last line: the program was ended while it wrote.
    """
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    lines, problems = list[_Line](), list[str]()
    for line in whole:
        try:
            lines.append(_without_key(msgspec.json.decode(line, type=_Line), key))
        except (ValueError, RecursionError) as error:
            problems.append(str(error))
    if not problems:
        return lines, []
    return lines, [f"{len(problems)} of {len(whole)} lines of lm_eval cannot be read ({problems[0]})"]


def _without_key(line: _Line, key: str | None) -> _Line:
    row = line.row
    if row is not None:
        answer, error = masked_known(row.answer, [key]), row.error and masked_known(row.error, [key])
        row = replace(row, answer=answer, error=error)
    return msgspec.structs.replace(line, row=row, failed=line.failed and masked_known(line.failed, [key]))


def _run(
    tasks: Tasks,
    chat: Mapping[str, Any] | None,
    folder: Path,
    limit_s: float,
    key: str | None = None,
    state_dir: Path | None = None,
) -> str | None:
    """Run the program, which writes tasks.jsonl, and return why it did not finish, or None."""
    job, log = folder / "tasks.json", folder / LOG_NAME
    task_job = {"tasks": tasks.own, "chat": chat, "rows": str(folder / ROWS_NAME)}
    job.write_bytes(msgspec.json.encode(task_job))
    argv = [str(tasks.python), "-P", str(TASKS_PROGRAM), str(job)]
    try:
        with supervised(
            argv,
            log_path=log,
            state_dir=state_dir,
            label="lm_eval",
            environment={KEY_VARIABLE: key or ""},
            without=secret_names(os.environ),
        ) as process:
            code = process.wait(limit_s)
    finally:
        job.unlink()
        with suppress(OSError):  # what ended the block, such as a full disk, says more
            _mask(log, key)
    return _problem(code, limit_s, log)


def _mask(log: Path, key: str | None) -> None:
    """Mask the key in a log and cut the log to 4 MiB. In place, so that a full disk cannot lose it."""
    with log.open("rb+") as file:
        content = file.read(_MOST_LOG_BYTES)
        file.seek(0)
        file.write(masked_bytes(content, [key]))
        file.truncate()


def _problem(code: int | None, limit_s: float, log: Path) -> str | None:
    if code == 0:
        return None
    if code is None:
        return f"lm_eval had not ended after {limit_s:.0f} s"
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return f"lm_eval exited with code {code}: {masked(last)}"
