"""The tables of Trust, on what the numbers rest: client, cells, starts, servers, machine and metrics."""

import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd

from serving_bench.harness.contracts import Skip, masked, masked_argv, masked_values
from serving_bench.harness.store.store import StartRecord
from serving_bench.reports.checks.examine import clean_of, findings_of
from serving_bench.reports.checks.late_client import ms, nearest_of
from serving_bench.reports.checks.ledger import ledger_of
from serving_bench.reports.data import Cell, Group, Run, gathered, start_title
from serving_bench.reports.measures import NOTHING, flat, metrics_of, number
from serving_bench.reports.measures.metric import Metric
from serving_bench.reports.page.cells import COMPARED, mean_cell, value_of_cell
from serving_bench.reports.page.declared import Columns, Table, of_group
from serving_bench.reports.page.drawing import charts
from serving_bench.reports.page.looks import Head, Html, Of, join, looks, macro, paragraph, table, tag
from serving_bench.reports.words import grounds as words
from serving_bench.reports.words.described import VARIABLE, fact, facts_of, key_words, traffic_of
from serving_bench.reports.words.verdict_words import heading_of

# Facts that serve to compare instants and boots; the self-test has its own part, bench's own error.
_NOT_SHOWN = ("clock", "machine.boot_id", "selftest")
# Failed requests: deployment and load, how they ended, and their rows.
Failed = tuple[Of, str, pd.DataFrame]


def checks(run: Run) -> list[charts.Part]:
    """Return what the checks found, what they did not find, and what could not be checked."""
    findings = findings_of(run)
    kinds = [
        (*kind_words, [(each, words.where(run, each)) for each in findings if each.marks is marks])
        for marks, kind_words in words.KINDS.items()
    ]
    return [macro("checks", kinds, *clean_of(run))]


# --- fairness and the client -----------------------------------------------------------------------


def fairness(run: Run) -> list[charts.Part]:
    """Return the ledger: what each deployment was asked for, and what its server says it uses."""
    ledger = ledger_of(run)
    notes = list(dict.fromkeys(e.clause for row in ledger for e in row.entries.values() if e.clause))
    uneven = tag("span", "not the same everywhere", class_="said warn")
    rows = [
        [
            join([row.title, uneven if row.is_uneven else ""]),
            *(macro("entry", e, notes) for e in row.entries.values()),
        ]
        for row in ledger
    ]
    numbered = tag("ol", *(tag("li", note) for note in notes), class_="note ledger-notes")
    return [table(["term", *_heads(run)], rows, "ledger", "Fairness"), numbered] if ledger else []


def _heads(run: Run) -> list[Head]:
    return [Head(macro("dep", look), Of(label)) for label, look in looks(run).items()]


def _client_columns(run: Run) -> Columns[Group]:
    nearest = nearest_of(run)
    return {
        "deployment": lambda group: macro("dep", looks(run)[group.deployment]),
        "scenario": lambda group: group.scenario if run.has_scenarios else "",
        "load": lambda group: group.load,
        "nearest load tested": lambda group: nearest[group.key].at if group.key in nearest else NOTHING,
        "own TTFT error p50 / p99 ms": lambda group: (
            " / ".join(map(ms, nearest[group.key].error_s)) if group.key in nearest else NOTHING
        ),
        **{
            f"{kind} tokens": partial(mean_cell, run, name=f"{kind}_tokens")
            for kind in ("input", "output", "cached")
        },
        "tokens per chunk": partial(mean_cell, run, name="tokens_per_chunk"),
        "send lag p50 ms": partial(mean_cell, run, name="send_lag_s.p50"),
        "CPU % of one core": lambda group: number(
            max(
                (s.cores_here for c in group.counted if (s := c.summary) and s.cores_here is not None),
                default=None,
            ),
            scale=100,
        ),
    }


CLIENT = Table[Group](
    "Client",
    lambda run: [group for group in run.groups if any(cell.summary for cell in group.counted)],
    _client_columns,
    of_group,
    "plain client",
    is_bare=True,
)


# --- windows, failures, cells and starts -----------------------------------------------------------


def _failed(run: Run) -> list[Failed]:
    of = {cell.number: Of(cell.label, cell.load_label) for cell in run.planned_cells}
    failed = run.failed_requests
    kinds: Any = failed.groupby([failed["cell"].map(of), "outcome"], sort=False)
    return [(*key, rows) for key, rows in kinds]


def _most_frequent(messages: pd.Series) -> Html | str:
    counts = messages.value_counts()
    return tag("code", masked(str(counts.index[0]))[:300]) if len(counts) else NOTHING


FAILURES = Table[Failed](
    "Failures",
    _failed,
    lambda _: {
        "deployment": lambda kind: kind[0].deployment or "",
        "load": lambda kind: kind[0].load or "",
        "kind": lambda kind: kind[1],
        "in the window": lambda kind: f"{int(kind[2]['in_window'].fillna(False).sum()):,}",
        "in total": lambda kind: f"{len(kind[2]):,}",
        "most frequent message": lambda kind: _most_frequent(kind[2]["error"]),
    },
    lambda kind: kind[0],
    "words",
    is_bare=True,
)


CELLS = Table[Cell](
    "Every cell",
    lambda run: run.planned_cells,
    lambda run: {
        "cell": lambda cell: f"{cell.number:03d}",
        "deployment": lambda cell: cell.label,
        "load": lambda cell: cell.load_label,
        "start": lambda cell: str(cell.planned.repeat + 1),
        "status": lambda cell: tag("span", cell.became, class_="" if cell.became == "valid" else "bad"),
        **{heading_of(name): partial(value_of_cell, run, name) for name in COMPARED},
        "why": lambda cell: tag("span", str(cell.reason), class_="why") if cell.reason else "",
        "what the guard saw": words.guard_saw,
        "prefix cache before it": words.cache_left,
    },
    lambda cell: Of(cell.label, cell.load_label, cell.planned.repeat + 1),
    "summary",
    is_bare=True,
)


SKIPPED = Table[Skip](
    "Not run",
    lambda run: run.record.plan.skips,
    lambda _: {"what": lambda skip: skip.what, "why": lambda skip: str(skip.reason)},
    look="words",
    is_bare=True,
)


def in_order(run: Run) -> list[StartRecord]:
    """Return the starts in the order in which they ran."""
    return sorted(run.start_records, key=lambda record: run.began_ns(record) or 0)


def _began(run: Run, record: StartRecord) -> str:
    zero_ns = run.began_ns(in_order(run)[0]) or 0
    return number(((run.began_ns(record) or zero_ns) - zero_ns) / 60e9, 1)


STARTS = Table[StartRecord](
    "Order of the starts",
    in_order,
    lambda run: {
        "start": lambda record: record.name,
        "deployment": lambda record: macro("dep", looks(run)[record.deployment.label]),
        "repeat": lambda record: start_title(run, record),
        "began, minutes": partial(_began, run),
        "status": lambda record: record.status,
        "error": lambda record: str(record.error or ""),
    },
    lambda record: Of(record.deployment.label, start=record.repeat + 1),
    "words",
    is_bare=True,
)


def logs(run: Run) -> list[charts.Part]:
    """Return the end of the log of each start that failed."""
    return [
        tag("details", tag("summary", f"End of the log of {each.name}"), tag("pre", each.log_tail))
        for each in in_order(run)
        if each.log_tail and (each.error or each.status == "failed")
    ]


# --- servers ---------------------------------------------------------------------------------------


def servers(run: Run) -> list[charts.Part]:
    """Return the facts about each deployment's server, and its command lines."""
    started = {label: records for label in run.deployments if (records := run.starts_of(label))}
    facts = list(map(facts_of, started.values()))
    keys = dict.fromkeys(key for of_server in facts for key in of_server)
    # Environment variables only if they differ; each command below is shown with all of its own.
    differ = [
        key
        for key in keys
        if not key.startswith(VARIABLE) or len({of_server.get(key) for of_server in facts}) > 1
    ]
    rows = [[key_words(key), *(fact(key, of_server.get(key)) for of_server in facts)] for key in differ]
    heads = [each for each in _heads(run) if each.of.deployment in started]
    parts: list[charts.Part] = [
        table(["fact", *heads], rows, "ledger", "What each server is, and what it says it uses")
    ]
    for label, records in started.items():
        if any(record.argv for record in records):
            parts += charts.block(f"Command of {label}", _commands(run, records), Of(label), is_folded=True)
    return parts if started else []


def _commands(run: Run, records: Sequence[StartRecord]) -> Iterator[Html]:
    lines = (
        "\n".join(
            [f"{name}={shlex.quote(value)}" for name, value in masked_values(record.environment).items()]
            + [shlex.join(masked_argv(record.argv))]
        )
        for record in records
    )
    for whole, of in gathered(zip(lines, records, strict=True)).items():
        yield paragraph(f"Start {', '.join(start_title(run, record) for record in of)}")
        yield tag("pre", tag("code", whole), class_="command", tabindex="0")


# --- traffic, machine and metrics ------------------------------------------------------------------


def machine(run: Run) -> list[charts.Part]:
    """Return the traffic as planned and the machine as recorded; packages are folded."""
    tables: dict[str, Any] = {"Traffic": list(traffic_of(run)), "Machine": [], "Packages": []}
    for key, value in flat(run.record.environment):
        topic, _, name = key.partition(".")
        if topic.endswith("packages"):
            whole = f"bench.{name}" if topic == "packages" else name
            tables["Packages"].append((whole, fact(key, value)))
        elif not key.startswith(_NOT_SHOWN):
            tables["Machine"].append((key_words(key.removeprefix("machine.")), fact(key, value)))
    return [
        part
        for title, rows in tables.items()
        if rows
        for part in charts.block(
            title, [table(["fact", "value"], rows, "words facts", title)], is_folded=title == "Packages"
        )
    ]


DEFINITIONS = Table[Metric](
    "Metrics",
    metrics_of,
    lambda _: {
        "metric": lambda metric: metric.title,
        "name": lambda metric: tag("code", metric.name),
        "unit": lambda metric: metric.unit,
        "better": lambda metric: metric.better,
        "definition": lambda metric: metric.formula,
        "source": lambda metric: metric.source,
    },
    look="words method",
    is_bare=True,
)
