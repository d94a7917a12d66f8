"""Measure the quality of a start's server once its load is over, on one start of each deployment."""

import time
from dataclasses import replace

from serving_bench.harness.contracts import QualityRecord, QualityTerms, quoted
from serving_bench.harness.errors import BenchError
from serving_bench.harness.quality.measure import Server, measure, most_s
from serving_bench.harness.quality.planned import has_answers
from serving_bench.harness.quality.tasks import Tasks, TasksServer, ask_tasks
from serving_bench.harness.run.start import Serving
from serving_bench.harness.run.watch import Site
from serving_bench.harness.settings.units import duration_text, grouped
from serving_bench.harness.store.named_files import QUALITY_FILE
from serving_bench.harness.store.quality_table import bits_of, write_quality
from serving_bench.harness.store.store import read_cells

# Requests in flight where the load does not say how many (an open loop), and the most.
_IN_FLIGHT, _MOST_IN_FLIGHT = 8, 64
_WAYS = {
    "chat": "chats",
    "again": "the same chats again",
    "load": "the same chats under load",
    "text": "given texts",
    "prompt": "prompts read",
}


def missing_lines(record: QualityRecord) -> list[str]:
    """Return a line for each reason why some ways of asking gave nothing."""
    reasons = grouped((str(why), _WAYS[way]) for way, why in record.missing.items() if way in _WAYS)
    return [f"quality by {', '.join(ways)} not measured: {why}" for why, ways in reasons.items()]


def ask_quality(up: Serving, site: Site) -> float:
    """Ask what is due of this deployment, and store it. Return the seconds it took.

    A failure is shown, and does not end the start.
    """
    due, label = site.quality, up.start.deployment.label
    if due is None or label not in due.labels:
        return 0.0
    up.watch.leave_out("quality")
    began_s, server = time.monotonic(), _server(up, site)
    try:
        record = QualityRecord(due.items.sha256, 0, 0.0, bits=server.bits)
        if due.terms.asked != ("tasks",):
            budget_s = due.terms.budget_s
            limits = f"{duration_text(budget_s)}, at most {duration_text(most_s(budget_s))}"
            site.observer.line(f"{up.start.name}: asking for its quality, {limits}")
            rows, record = measure(server, due.items, budget_s, at_length=due.at_length)
            write_quality(up.record.path.with_name(QUALITY_FILE), rows)
            for line in missing_lines(record):
                site.observer.line(f"{up.start.name}: {line}")
            if not rows and not due.tasks:
                again = "its next start, or --resume, asks it again"
                site.observer.line(f"{up.start.name}: gave no answers for its quality; {again}")
        up.record.update(quality=record)
        if due.tasks and (untold := _ask_tasks(server, due.tasks, due.terms, up, site)):
            up.record.update(quality=replace(record, missing={**record.missing, "tasks": quoted(untold)}))
            site.observer.line(f"{up.start.name}: not all of its quality by tasks is measured: {untold}")
        if has_answers(up.record.path.parent):
            due.labels.discard(label)
    except (BenchError, OSError, ValueError) as error:  # whatever numbers a server sends
        site.observer.line(f"{up.start.name}: quality not measured: {error}")
    return time.monotonic() - began_s


def _ask_tasks(server: Server, tasks: Tasks, terms: QualityTerms, up: Serving, site: Site) -> str | None:
    began_s = time.monotonic()
    what = f"{', '.join(tasks.own)}, up to {duration_text(terms.tasks_budget_s)}"
    site.observer.line(f"{up.start.name}: asking the items of {what}")
    tasks_server = TasksServer(
        server.spec.base_url, server.spec.served_model, server.fields(), server.in_flight, server.key
    )
    try:
        return ask_tasks(tasks, tasks_server, terms.tasks_budget_s, up.record.path.parent, site.state_dir)
    finally:
        if site.budget:
            site.budget.extend(time.monotonic() - began_s)


def _server(up: Serving, site: Site) -> Server:
    deployment = up.start.deployment
    slots = min(deployment.terms.concurrent_sequences or _IN_FLIGHT, _MOST_IN_FLIGHT)
    # Its load may have been measured on an earlier start.
    done = (cell for cell in read_cells(site.run_dir) if cell.deployment == deployment.label and cell.counts)
    loads = ((cell.load.concurrency or 0) * cell.scenario.width or slots for cell in done)
    in_flight = min(max(loads, default=1), _MOST_IN_FLIGHT)
    return Server(up.engine, deployment, up.spec, up.key, in_flight, bits_of(deployment))
