"""Ask a start's server for its quality once its load is over: one start of each deployment."""

import time
from dataclasses import replace

from engines import QUANTIZATIONS
from harness.contracts import QualityRecord, QualityTerms
from harness.errors import BenchError
from harness.quality.measure import Server, measure
from harness.quality.tasks import Tasks, TasksServer, ask_tasks
from harness.run.start import Serving
from harness.run.watch import Site
from harness.settings.units import duration_text
from harness.store.quality_table import FILE_NAME, write_quality

# In flight at once where the load does not say it: an open loop.
_IN_FLIGHT = 8


def ask_quality(up: Serving, site: Site) -> float:
    """Ask what is due of this deployment, and store it. Return the seconds that it took. Ends no start."""
    due, label = site.quality, up.start.deployment.label
    if due is None or label not in due.labels:
        return 0.0
    up.watch.leave_out("quality")
    began_s, server = time.monotonic(), _server(up)
    try:
        record = QualityRecord(due.items.sha256, 0, 0.0, bits=server.bits)
        if due.terms.asked != ("tasks",):
            site.observer.line(f"{up.start.name}: asking for its quality, up to {due.terms.budget_s:g} s")
            rows, record = measure(server, due.items, due.terms.budget_s)
            write_quality(up.record.path.with_name(FILE_NAME), rows)
        for way, why in record.missing.items():
            site.observer.line(f"{up.start.name}: quality by {way} not measured: {why}")
        up.record.update(quality=record)
        if due.tasks and (untold := _ask_tasks(server, due.tasks, up, site)):
            up.record.update(quality=replace(record, missing={**record.missing, "tasks": untold}))
            site.observer.line(f"{up.start.name}: not all of its quality by tasks is measured: {untold}")
        due.labels.discard(label)
    except (BenchError, OSError) as error:
        site.observer.line(f"{up.start.name}: quality not measured: {error}")
    return time.monotonic() - began_s


def _ask_tasks(server: Server, tasks: Tasks, up: Serving, site: Site) -> str | None:
    terms = site.quality.terms if site.quality else QualityTerms()
    what = f"{', '.join(tasks.own)}, up to {duration_text(terms.tasks_budget_s)}"
    site.observer.line(f"{up.start.name}: asking the items of {what}")
    asked = TasksServer(
        server.spec.base_url, server.spec.served_model, server.fields(), server.in_flight, server.key
    )
    return ask_tasks(tasks, asked, terms.tasks_budget_s, up.record.path.parent, site.state_dir)


def _server(up: Serving) -> Server:
    loads = [cell.load for cell in up.start.cells]
    slots = up.start.deployment.terms.concurrent_sequences or _IN_FLIGHT
    in_flight = max((load.concurrency or slots for load in loads), default=1)
    kind = QUANTIZATIONS.get(up.start.deployment.quantization)
    return Server(
        up.engine, up.start.deployment, up.spec, up.key, in_flight, kind.bits_per_weight if kind else None
    )
