"""A run as pandas frames: what was planned, what became of it, and each cell's values.

Reads a results directory through tables; computes on reading, stores nothing, draws nothing.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd

from harness.contracts import Deployment, SelfTest
from harness.errors import StoreError
from harness.store import store
from harness.store.store import RunRecord, StartRecord
from reports import values
from reports.cells import Aggregate, Cell, Group, groups_of
from reports.comparing import equal_work
from reports.comparing.comparisons import Comparisons, comparisons_of
from reports.comparing.equal_work import Work
from reports.frame_rows import cell_row, start_row
from reports.metrics import Value, is_percentile, metric_of, value_of_start, why_no_mean
from reports.reading import records, tables
from reports.reading.gap_counts import NO_GAPS, GapCounts
from reports.samples import slices
from reports.statistics import intervals
from reports.values import Measured

if TYPE_CHECKING:
    from reports.answering.lineups import Lineup
    from reports.checks.finding import Finding
    from reports.deciding.decision import Row
    from reports.deciding.searches import Capacity

# Cells whose chunks are read side by side, each on a core, and in memory.
WORKERS = min(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Run:
    """One results directory, read. The frames are computed when first asked for.

    `requests`, one row per request of every cell: `cell`, the columns of requests.parquet but chunk_ns and
    the texts, and ttft_s, tpot_s, e2e_s, send_lag_s (seconds; NaN where undefined).
    `host`, `device` and `server`: samples as stored, with the column `start`; None where there are none. The
    frames have every value that was measured, `aggregate` those that may stand side by side.
    """

    path: Path
    record: RunRecord
    start_records: tuple[StartRecord, ...]
    planned_cells: tuple[Cell, ...]

    @cached_property
    def requests(self) -> pd.DataFrame:
        origins = {cell.number: cell.origin for cell in self.planned_cells if cell.record}
        return tables.requests_frame(self.path, origins)

    @cached_property
    def host(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "host.parquet")

    @cached_property
    def device(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "device.parquet")

    @cached_property
    def server(self) -> pd.DataFrame | None:
        return tables.samples_frame(self.path, self._start_names, "server.parquet")

    @property
    def _start_names(self) -> list[str]:
        return [record.name for record in self.start_records]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per planned cell: number, start, deployment, engine, model, quantization, repeat, scenario,
        load, concurrency, rate_per_s, status, validity, reason, window_s, and a column per value
        (`ttft_s.p50`)."""
        return pd.DataFrame([cell_row(self, cell) for cell in self.planned_cells])

    @cached_property
    def starts(self) -> pd.DataFrame:
        """One row per start that was begun: name, index, deployment, repeat, status, error, launch_s,
        memory_kind, memory_peak_bytes (of its whole life), baseline_bytes, after_bytes."""
        return pd.DataFrame([start_row(self, record) for record in self.start_records])

    @cached_property
    def is_going_on(self) -> bool:
        """Whether a bench measures it now; what follows is of the cells that there are."""
        return store.is_going_on(self.path, self.record.status)

    @cached_property
    def found_once(self) -> dict[Hashable, Any]:
        """See reports/once.py."""
        return {}

    @cached_property
    def measured(self) -> dict[int, Measured]:
        """What each completed cell came to, by its number."""
        completed = [cell for cell in self.planned_cells if cell.status == "completed"]
        with ThreadPoolExecutor(WORKERS) as pool:
            totals = pool.map(lambda cell: values.totals_of(self.path, cell), completed)
            return {
                cell.number: values.measured(self, cell, found)
                for cell, found in zip(completed, totals, strict=True)
            }

    @cached_property
    def values(self) -> dict[int, dict[str, Value]]:
        """Each completed cell's values by name."""
        return {number: found.values for number, found in self.measured.items()}

    @cached_property
    def turn_values(self) -> dict[int, dict[int, dict[str, Value]]]:
        """Each completed cell's values by turn (from 0) and name; see values_by_turn."""
        from reports.reading.turn_values import values_by_turn  # it reads values: above it would be a circle

        return {number: values_by_turn(self, number) for number in self.values}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Deployments in the order asked for, and their loads within."""
        return groups_of(self.planned_cells, list(self.deployments))

    @cached_property
    def deployments(self) -> dict[str, Deployment]:
        """By label, in the order asked for; starts are in another."""
        return self.record.plan.deployments

    @cached_property
    def work(self) -> Work:
        """Which deployments did the same work."""
        return equal_work.work_of(self)

    @cached_property
    def comparisons(self) -> Comparisons:
        """What may be said of its deployments, two at a time."""
        return comparisons_of(self)

    @cached_property
    def decisions(self) -> list[Row]:
        """With an SLO, which deployments keep it at each load, and the best of those."""
        # It reads what servers needed, whose modules are above this one.
        from reports.deciding import decision

        return decision.decision_rows(self)

    @cached_property
    def lineups(self) -> list[Lineup]:
        """What the first screen is about: of each scenario and model the deployments at one load."""
        from reports.answering import lineups  # as above

        return lineups.lineups_of(self)

    @cached_property
    def capacities(self) -> list[Capacity]:
        """Of a search, what each deployment's starts came to."""
        # It needs the checks' marks, so importing it above would be a circle.
        from reports.deciding import searches

        return searches.capacities_of(self)

    @cached_property
    def examined(self) -> dict[str, tuple[Finding, ...]]:
        """What each check found, by what it looks for."""
        from reports import checks  # they read runs, so importing them above would be a circle

        return checks.examine(self)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The reasons to distrust it."""
        return tuple(finding for found in self.examined.values() for finding in found)

    @cached_property
    def selftest(self) -> SelfTest | None:
        """What bench had measured of its own error on this machine; None where it had not."""
        recorded = self.record.environment.get("selftest")
        if recorded is None:
            return None
        try:
            return msgspec.convert(recorded, SelfTest)
        except msgspec.ValidationError as error:
            raise StoreError(f"{self.path / 'run.json'}: damaged (environment.selftest: {error})") from error

    def gaps(self, number: int) -> tables.Gaps:
        """Gaps between content chunks of a cell's ok requests in the window, one by one; read each time.
        A page draws from `gap_counts`."""
        return tables.read_gaps(self.path, number)

    def gap_counts(self, number: int) -> GapCounts:
        """The same gaps counted in bins, by turn and by time in the window, at no cost; none of a cell that
        was not completed. `gap_counts.together` adds those of several cells, `quantile` reads them."""
        return self.measured[number].gap_counts if number in self.measured else NO_GAPS

    def observations(self, number: int, name: str) -> np.ndarray:
        """A cell's observations of a latency (`ttft_s`, `itl_s` ...): its ok requests in the window.
        Not to be written to."""
        if name == "itl_s":
            return self.gaps(number).seconds
        if (number, name) not in self._observed:
            found = self.ok_values(number, name)
            found = found[~np.isnan(found)]
            found.flags.writeable = False
            self._observed[number, name] = found
        return self._observed[number, name]

    @cached_property
    def _observed(self) -> dict[tuple[int, str], np.ndarray]:
        return {}

    def by_turn(self, number: int, name: str) -> pd.DataFrame:
        """A cell's observations of a latency with the request and the turn (from 0) of each, in the columns
        `seconds`, `request` and `turn`."""
        if name == "itl_s":
            gaps = self.gaps(number)
            return pd.DataFrame({"seconds": gaps.seconds, "request": gaps.request, "turn": gaps.turn})
        seconds, turn = self.ok_values(number, name), self.ok_values(number, "turn")
        has_one = ~np.isnan(seconds)
        seconds, turn = seconds[has_one], turn[has_one].astype(int)
        return pd.DataFrame({"seconds": seconds, "request": np.arange(len(seconds)), "turn": turn})

    def window_samples(self, frame: pd.DataFrame | None, cell: Cell) -> pd.DataFrame:
        """The samples (`host`, `device` or `server`) of the cell's start that were taken in its window."""
        if frame is None or cell.record is None or cell.summary is None:
            return pd.DataFrame()
        own = slices.of_start(frame, cell.record.start)
        return slices.between(own, cell.summary.window_start_ns, cell.summary.window_end_ns)

    def window_requests(self, number: int) -> pd.DataFrame:
        """A cell's requests that were sent in its window, whatever became of them."""
        return self._in_windows[number] if number in self._in_windows else self.requests.iloc[:0]

    def ok_requests(self, number: int, *columns: str) -> pd.DataFrame:
        """Those of them that are ok: these columns, or all."""
        sent = self.window_requests(number)
        return slices.taken(sent[list(columns)] if columns else sent, self._ok_mask(number))

    def ok_values(self, number: int, name: str) -> np.ndarray:
        """A column of numbers of those, NaN where one is not known."""
        found = values.floats(self.window_requests(number)[name])
        return np.asarray(found[self._ok_mask(number)])

    def _ok_mask(self, number: int) -> np.ndarray:
        if number not in self._ok_masks:
            outcome = self.window_requests(number)["outcome"]
            self._ok_masks[number] = np.asarray(outcome == "ok", dtype=bool)
        return self._ok_masks[number]

    @cached_property
    def _ok_masks(self) -> dict[int, np.ndarray]:
        return {}

    def cell_requests(self, number: int) -> pd.DataFrame:
        """All of a cell's requests."""
        return self._by_cell[number] if number in self._by_cell else self.requests.iloc[:0]

    @cached_property
    def _by_cell(self) -> dict[int, pd.DataFrame]:
        numbers = self.requests["cell"].to_numpy()
        return {int(numbers[begin]): self.requests.iloc[begin:end] for begin, end in slices.runs_of(numbers)}

    @cached_property
    def _in_windows(self) -> dict[int, pd.DataFrame]:
        return {
            number: slices.taken(frame, frame["in_window"].to_numpy(dtype=bool, na_value=False))
            for number, frame in self._by_cell.items()
        }

    def aggregate(self, group: Group, name: str) -> Aggregate:
        """The value of a name over the group's starts that count; none where the group's answers have not the
        length that it needs."""
        if why := self.withheld(group.key, name):
            return Aggregate(None, None, None, 0, 0, (), why=why)
        return self.aggregate_of(group, name, list(self.by_start(group, name).values()))

    def aggregate_of(self, group: Group, name: str, found: Sequence[Value]) -> Aggregate:
        """The same of values of a name, one of each of the group's starts that count."""
        by_start = tuple(value.value for value in found)
        used = [value for value in found if value.value is not None]
        if not used or (is_percentile(name) and len(used) < len(found)):
            why = why_no_mean(name, found) if found else None
            return Aggregate(None, None, None, 0, 0, by_start, why=why)
        known = [value for value in by_start if value is not None]
        requests = [value.requests for value in used if value.requests is not None]
        # A value of 0 has no logarithm: such means are as additive ones.
        is_log = not metric_of(name).is_additive and intervals.may_be_logged(known)
        estimate = intervals.of_values(known, is_log=is_log)
        return Aggregate(
            mean=estimate.shown,
            low=min(known),
            high=max(known),
            k=len(used),
            n=sum(value.n for value in used),
            values=by_start,
            requests=sum(requests) if requests else None,
            interval=estimate.interval() if len(known) > 1 else None,
            is_of_starts=self.is_restarted(group.deployment),
        )

    def by_start(self, group: Group, name: str) -> dict[int, Value]:
        """The value of a name of each start that counts, by its repeat: over all its windows at that load."""
        return {
            cells[0].planned.repeat: value_of_start(
                [self.values[cell.number].get(name, Value(None, 0)) for cell in cells]
            )
            for cells in group.counted_by_start
        }

    def is_restarted(self, label: str) -> bool:
        """Whether each repeat of a deployment had a server of its own; not one that was running already."""
        return not any(record.attached for record in self.starts_of(label))

    def withheld(self, key: tuple[str, str, str], name: str) -> str | None:
        """Why a value is not offered for the cells of this key (deployment, scenario, load); None: it is."""
        return self.work.per_token_only.get(key) if metric_of(name).needs_equal_lengths else None

    def unit_of(self, name: str) -> str:
        """A value's unit as it is shown; of a cost the currency of the run's own price."""
        metric, price = metric_of(name), self.record.price
        return price.currency if metric.unit == "price.currency" and price else metric.shown_unit

    def starts_of(self, label: str) -> list[StartRecord]:
        """The records of a deployment's starts, in order."""
        return [record for record in self.start_records if record.deployment.label == label]

    def start_of(self, cell: Cell) -> StartRecord | None:
        """The record of the start that the cell was or would be measured on."""
        return self._starts_by_name.get(cell.record.start if cell.record else cell.start.name)

    @cached_property
    def _starts_by_name(self) -> dict[str, StartRecord]:
        return {record.name: record for record in reversed(self.start_records)}


def open_run(run_dir: Path) -> Run:
    """Read a results directory that `bench run` made, without the secrets that a server's texts may have.

    Raises StoreError where it cannot be read.
    """
    record, starts, cells = records.read_records(run_dir)
    return Run(run_dir, record, starts, cells)


def deployments(run: Run) -> Iterator[tuple[str, str, str]]:
    """Label, engine and quantization of each deployment, in the order asked for."""
    for label, deployment in run.deployments.items():
        yield label, deployment.engine, deployment.quantization
