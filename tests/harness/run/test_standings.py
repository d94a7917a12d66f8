"""Standings: told and stored after each repeat that is whole, and of no bearing on what comes next."""

from collections.abc import Sequence
from pathlib import Path

from begun_run import Told, begin, settings_of

from serving_bench.harness.contracts import PlannedStart, Standing
from serving_bench.harness.errors import StoreError
from serving_bench.harness.run.next_starts import with_standings
from serving_bench.harness.store import store
from serving_bench.harness.store.store import CellRecord, Kept, RunRecord


class Stands:
    def standings(self, directory: Path, repeats: int) -> Sequence[Standing]:
        words = f"b ahead after {repeats}"
        return [Standing(repeats, "chat", "-", "2 users", "output_tokens_per_s", "b", "a", 1.1, words)]


def measure(run: Kept[RunRecord], start: PlannedStart) -> None:
    """Store what a start leaves: a record of each cell."""
    for cell in start.cells:
        folder = store.begin_cell(run.path.parent, cell.number)
        record = CellRecord(
            cell.number, start.name, start.deployment.label, cell.repeat, cell.scenario, cell.load, cell.seed,
            status="failed",
        )  # fmt: skip
        store.write_record(folder / "cell.json", record)


def test_a_standing_is_told_and_stored_after_each_repeat_but_the_plans_last(tmp_path: Path) -> None:
    directory, record, whole = begin(tmp_path)
    run, told = Kept(directory / "run.json", record), Told()
    begun = []
    for start in with_standings(run, whole.starts, Stands(), told):  # type: ignore[arg-type]
        begun.append((start.repeat, list(told.lines)))
        measure(run, start)
    assert begun == [(0, []), (0, []), (1, ["b ahead after 1"]), (1, ["b ahead after 1"])]
    assert told.lines == ["b ahead after 1"], "the answer follows the last"
    assert [each.words for each in store.read_run(directory).standings] == ["b ahead after 1"]


def test_with_until_the_last_of_the_plan_is_told_too(tmp_path: Path) -> None:
    directory, record, whole = begin(tmp_path)
    until = settings_of("until=ci:5%").until
    run, told = Kept(directory / "run.json", record), Told()
    run.update(until=until)
    for start in with_standings(run, whole.starts, Stands(), told):  # type: ignore[arg-type]
        measure(run, start)
    assert told.lines == ["b ahead after 1", "b ahead after 2"]


def test_a_run_goes_on_where_its_standing_cannot_be_read(tmp_path: Path) -> None:
    directory, record, whole = begin(tmp_path)
    run, told = Kept(directory / "run.json", record), Told()

    class Damaged:
        def standings(self, directory: Path, repeats: int) -> Sequence[Standing]:
            raise StoreError("cells/001: damaged")

    starts = []
    for start in with_standings(run, whole.starts, Damaged(), told):  # type: ignore[arg-type]
        starts.append(start)
        measure(run, start)
    assert starts == list(whole.starts)
    assert told.lines == ["how the deployments stand is not known: cells/001: damaged"]
