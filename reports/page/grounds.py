"""The tables of Trust, on what the numbers rest: client, cells, starts, servers, machine and metrics."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from serving_bench.harness.contracts import masked, masked_argv, masked_values
from serving_bench.harness.store.store import StartRecord
from serving_bench.reports.checks.examine import clean_of, findings_of
from serving_bench.reports.checks.late_client import ms, nearest_of
from serving_bench.reports.checks.ledger import ledger_of
from serving_bench.reports.data import Cell, Group, Run, gathered, start_title
from serving_bench.reports.measures import NOTHING, flat, metrics_of, number
from serving_bench.reports.page.cells import COMPARED, mean_cell, value_of_cell
from serving_bench.reports.page.looks import Head, Html, Of, Row, join, looks, macro, paragraph, tag
from serving_bench.reports.page.parts import Block, Part, Shown, Table, of_group
from serving_bench.reports.words import grounds as words
from serving_bench.reports.words.described import VARIABLE, fact, facts_of, key_words, traffic_of
from serving_bench.reports.words.verdict_words import heading_of

# Facts that serve to compare instants and boots; the self-test has its own part, bench's own error.
_NOT_SHOWN = ("clock", "machine.boot_id", "selftest")


def checks(run: Run) -> Html:
    """Return what the checks found, what they did not find, and what could not be checked."""
    findings = findings_of(run)
    kinds = [
        (*kind_words, [(each, words.where(run, each)) for each in findings if each.marks is marks])
        for marks, kind_words in words.KINDS.items()
    ]
    return macro("checks", kinds, *clean_of(run))


# --- fairness and the client -----------------------------------------------------------------------


def fairness(run: Run) -> list[Part]:
    """Return the ledger: what each deployment was asked for, and what its server says it uses."""
    ledger = ledger_of(run)
    notes = list(dict.fromkeys(e.clause for row in ledger for e in row.entries.values() if e.clause))
    uneven = tag("span", "not the same everywhere", class_="said warn")
    rows = [
        Row(
            {
                "term": join([row.title, uneven if row.is_uneven else ""]),
                **{
                    head: macro("entry", entry, notes)
                    for head, entry in zip(_heads(run), row.entries.values(), strict=True)
                },
            }
        )
        for row in ledger
    ]
    numbered = tag("ol", *(tag("li", note) for note in notes), class_="note ledger-notes")
    return [Table("Fairness", rows, "ledger", is_bare=True), numbered] if ledger else []


def _heads(run: Run) -> list[Head]:
    return [Head(macro("dep", look), Of(label)) for label, look in looks(run).items()]


def client(run: Run) -> Table:
    groups = [group for group in run.groups if any(cell.summary for cell in group.counted)]
    rows = [Row(_client(run, group), of_group(group)) for group in groups]
    return Table("Client", rows, "plain client", is_bare=True)


def _client(run: Run, group: Group) -> dict[str, Shown]:
    nearest = nearest_of(run).get(group.key)
    cores = [cell.summary.cores_here for cell in group.counted if cell.summary]
    return {
        "deployment": macro("dep", looks(run)[group.deployment]),
        "scenario": group.scenario if run.has_scenarios else "",
        "load": group.load,
        "nearest load tested": nearest.at if nearest else NOTHING,
        "own TTFT error p50 / p99 ms": " / ".join(map(ms, nearest.error_s)) if nearest else NOTHING,
        **{
            f"{kind} tokens": mean_cell(run, group, f"{kind}_tokens")
            for kind in ("input", "output", "cached")
        },
        "tokens per chunk": mean_cell(run, group, "tokens_per_chunk"),
        "send lag p50 ms": mean_cell(run, group, "send_lag_s.p50"),
        "CPU % of one core": number(max((c for c in cores if c is not None), default=None), scale=100),
    }


# --- windows, failures, cells and starts -----------------------------------------------------------


def failures(run: Run) -> Table:
    of = {cell.number: Of(cell.label, cell.load_label) for cell in run.planned_cells}
    failed = run.failed_requests
    kinds: Any = failed.groupby([failed["cell"].map(of), "outcome"], sort=False)
    rows = [
        Row(
            {
                "deployment": about.deployment or "",
                "load": about.load or "",
                "kind": outcome,
                "in the window": f"{int(requests['in_window'].fillna(False).sum()):,}",
                "in total": f"{len(requests):,}",
                "most frequent message": _most_frequent(requests["error"]),
            },
            about,
        )
        for (about, outcome), requests in kinds
    ]
    return Table("Failures", rows, "words", is_bare=True)


def _most_frequent(messages: pd.Series) -> Html | str:
    counts = messages.value_counts()
    return tag("code", masked(str(counts.index[0]))[:300]) if len(counts) else NOTHING


def cells(run: Run) -> Table:
    rows = [
        Row(_cell(run, cell), Of(cell.label, cell.load_label, cell.planned.repeat + 1))
        for cell in run.planned_cells
    ]
    return Table("Every cell", rows, "summary", is_bare=True)


def _cell(run: Run, cell: Cell) -> dict[str, Shown]:
    return {
        "cell": f"{cell.number:03d}",
        "deployment": cell.label,
        "load": cell.load_label,
        "start": str(cell.planned.repeat + 1),
        "status": tag("span", cell.became, class_="" if cell.became == "valid" else "bad"),
        **{heading_of(name): value_of_cell(run, name, cell) for name in COMPARED},
        "why": tag("span", str(cell.reason), class_="why") if cell.reason else "",
        "what the guard saw": words.guard_saw(cell),
        "prefix cache before it": words.cache_left(cell),
    }


def skipped(run: Run) -> Table:
    rows = [Row({"what": skip.what, "why": str(skip.reason)}) for skip in run.record.plan.skips]
    return Table("Not run", rows, "words", is_bare=True)


def in_order(run: Run) -> list[StartRecord]:
    """Return the starts in the order in which they ran."""
    return sorted(run.start_records, key=lambda record: run.began_ns(record) or 0)


def starts(run: Run) -> Table:
    records = in_order(run)
    zero_ns = (run.began_ns(records[0]) or 0) if records else 0
    rows = [
        Row(
            {
                "start": record.name,
                "deployment": macro("dep", looks(run)[record.deployment.label]),
                "repeat": start_title(run, record),
                "began, minutes": number(((run.began_ns(record) or zero_ns) - zero_ns) / 60e9, 1),
                "status": record.status,
                "error": str(record.error or ""),
            },
            Of(record.deployment.label, start=record.repeat + 1),
        )
        for record in records
    ]
    return Table("Order of the starts", rows, "words", is_bare=True)


def logs(run: Run) -> list[Part]:
    """Return the end of the log of each start that failed."""
    return [
        tag("details", tag("summary", f"End of the log of {each.name}"), tag("pre", each.log_tail))
        for each in in_order(run)
        if each.log_tail and (each.error or each.status == "failed")
    ]


# --- servers ---------------------------------------------------------------------------------------


def servers(run: Run) -> list[Part]:
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
    heads = [each for each in _heads(run) if each.of.deployment in started]
    rows = [
        Row(
            {
                "fact": key_words(key),
                **{head: fact(key, of_server.get(key)) for head, of_server in zip(heads, facts, strict=True)},
            }
        )
        for key in differ
    ]
    commands = [
        Block(f"Command of {label}", list(_commands(run, records)), Of(label), is_folded=True)
        for label, records in started.items()
        if any(record.argv for record in records)
    ]
    return [Table("What each server is, and what it says it uses", rows, "ledger", is_bare=True), *commands]


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


def machine(run: Run) -> list[Block]:
    """Return the traffic as planned and the machine as recorded; packages are folded."""
    facts = [("Traffic", name, value) for name, value in traffic_of(run)]
    for key, value in flat(run.record.environment):
        topic, _, name = key.partition(".")
        if topic.endswith("packages"):
            facts.append(("Packages", f"bench.{name}" if topic == "packages" else name, fact(key, value)))
        elif not key.startswith(_NOT_SHOWN):
            facts.append(("Machine", key_words(key.removeprefix("machine.")), fact(key, value)))
    tables = {
        title: Table(
            title,
            [Row({"fact": name, "value": value}) for of, name, value in facts if of == title],
            "words facts",
            is_bare=True,
        )
        for title in ("Traffic", "Machine", "Packages")
    }
    return [Block(title, [each], is_folded=title == "Packages") for title, each in tables.items()]


def definitions(run: Run) -> Table:
    rows = [
        Row(
            {
                "metric": metric.title,
                "name": tag("code", metric.name),
                "unit": metric.unit,
                "better": metric.better,
                "definition": metric.formula,
                "source": metric.source,
            }
        )
        for metric in metrics_of(run)
    ]
    return Table("Metrics", rows, "words method", is_bare=True)
