"""The loop: for each start a server is brought up, its cells are measured and stored, the server is stopped.

A new run, a resumed run, one that grows and a search differ only in `starts` and `site.next_cell`.
"""

from collections.abc import Iterable

from serving_bench.harness.contracts import PlannedStart, quoted
from serving_bench.harness.errors import BenchError, Interrupted, ServerError
from serving_bench.harness.run.cell import fail_rest, run_cell
from serving_bench.harness.run.quality import ask_quality
from serving_bench.harness.run.start import (
    bring_up,
    hear_out,
    look_after_leaving,
    new_record,
    wait_for_memory,
    wait_ready,
)
from serving_bench.harness.run.watch import Site
from serving_bench.harness.store import checksums
from serving_bench.harness.store.store import CellRecord


def run_starts(starts: Iterable[PlannedStart], site: Site) -> None:
    """Measure the starts in order and store their cells. Raises Interrupted.

    The next start is taken only when the one before has ended, so `starts` may depend on its cells.
    """
    for start in starts:
        with checksums.changing(site.run_dir, f"starts/{start.name}"):
            _run_start(start, site)


def _run_start(start: PlannedStart, site: Site) -> None:
    """Measure one start, and ask its quality if that is due. A start without cells is only for quality.

    A failure, even of a device, ends the start but not the run.
    """
    site.observer.start_begins(start)
    record = new_record(start, site)
    done: list[CellRecord] = []
    once_s = 0.0
    if site.budget:
        site.budget.begins(start)
    try:
        with bring_up(start, site, record) as up:
            wait_ready(up, site)
            while (cell := site.next_cell(start, done)) is not None:
                done.append(run_cell(up, cell, site))
                up.watch.save()
            hear_out(up)
            once_s = ask_quality(up, site)
            once_s += look_after_leaving(up, site)
            up.watch.mark("stopping")
        record.update(status="completed")
    except (BenchError, OSError) as error:
        log_tail = error.log_tail if isinstance(error, ServerError) else None
        record.update(status="failed", error=quoted(str(error)), log_tail=log_tail)
        rest = fail_rest(start, done, error, site)
        site.observer.start_failed(start, str(error), len(rest))
        done += rest
    except Interrupted:
        record.update(status="interrupted")
        raise
    wait_for_memory(record)
    if site.budget:
        site.budget.ends(start, record.record.launch_s, [cell.summary for cell in done], once_s)
