"""What of a run is left to measure, and which runs are not resumed."""

import json
from dataclasses import replace

import make_run
import pytest
from begun_run import WORDS, begin, settings_of, write_begun
from make_run import S

from serving_bench.harness.errors import StoreError
from serving_bench.harness.plan import plan
from serving_bench.harness.run import next_starts, recorded
from serving_bench.harness.store import store


@pytest.fixture
def begun(tmp_path):
    """A run's directory, record and plan; nothing is measured yet."""
    return begin(tmp_path / "run")


def keep(directory, start, cell, status="completed") -> None:
    make_run.write_start(directory, make_run.start_record(start, S))
    make_run.write_cell(directory, cell, start, [], make_run.summary(S), status=status)


def cells_of(starts) -> list[tuple[str, list[int]]]:
    return [(start.name, [cell.number for cell in start.cells]) for start in starts]


def test_all_starts_are_missing_at_first(begun):
    directory, record, planned = begun
    assert next_starts.missing_starts(directory, record, planned) == list(planned.starts)


def test_completed_cells_are_not_measured_again_and_begun_starts_get_new_numbers(begun):
    directory, record, planned = begun
    first, second = planned.starts[:2]
    keep(directory, first, first.cells[0])
    keep(directory, first, first.cells[1], "failed")
    keep(directory, second, second.cells[0])
    keep(directory, second, second.cells[1])
    missing = next_starts.missing_starts(directory, record, planned)
    assert cells_of(missing) == [
        ("05-reference-label-a", [2]),
        ("03-reference-label-b", [5, 6]),
        ("04-reference-label-a", [7, 8]),
    ]


def test_what_a_grown_run_lacks_is_numbered_on_from_all_that_is_there(begun):
    """Its fourth start was begun anew as the fifth, so its third block begins with the sixth."""
    directory, record, planned = begun
    for start in planned.starts:
        for cell in start.cells:
            keep(directory, start, cell)
    keep(directory, replace(planned.starts[3], index=5), planned.starts[3].cells[0])
    grown = plan.grown(
        planned, settings_of(*WORDS), first_index=next_starts.last_index(directory, record) + 1
    )
    assert [start.index for start in grown.starts] == [1, 2, 3, 4, 6, 7]
    record = replace(record, plan=grown)
    keep(directory, grown.starts[4], grown.starts[4].cells[0])
    missing = next_starts.missing_starts(directory, record, grown)
    assert [(start.index, [cell.number for cell in start.cells]) for start in missing] == [
        (8, [10]),
        (7, [11, 12]),
    ]


def test_who_is_left_to_be_asked_gets_a_start_without_cells_behind_all_others(begun):
    directory, record, planned = begun
    for start in planned.starts[1:]:
        for cell in start.cells:
            keep(directory, start, cell)
    missing = next_starts.missing_starts(directory, record, planned)
    labels = list(planned.deployments)
    alone = next_starts.only_asked(directory, record, planned, missing, labels)
    (only,) = (label for label in labels if label != missing[0].deployment.label)
    assert [(start.deployment.label, start.cells) for start in alone] == [(only, ())]
    assert alone[0].index > max(start.index for start in (*planned.starts, *missing))
    assert next_starts.only_asked(directory, record, planned, missing, []) == []


def test_a_run_is_gone_on_with_in_the_order_and_with_the_seeds_on_record(begun):
    directory, record, planned = begun
    first, second, *others = planned.starts
    seeded = replace(first, cells=tuple(replace(cell, seed=7) for cell in first.cells[::-1]))
    turned = replace(planned, starts=(second, seeded, *others))
    store.write_record(directory / "run.json", replace(record, plan=turned))
    read = store.read_run(directory).plan
    whole = recorded.recorded_plan(directory, read, settings_of(*WORDS))
    assert whole == turned, "with this bench's types"
    assert next_starts.missing_starts(directory, record, whole) == list(turned.starts)


@pytest.mark.parametrize(
    "other",
    [
        "load.warmup=9s", "load.timeout=60s", "scenario.turns=9", "engine.context_length=512",
        "reference.slots=3", "reference.label=a,c", "load.concurrency=1,4",
    ],
)  # fmt: skip
def test_a_plan_that_the_settings_do_not_ask_for_is_not_gone_on_with(begun, other):
    """Where a default has changed since, too."""
    directory, _, planned = begun
    read = store.read_run(directory).plan
    assert recorded.recorded_plan(directory, read, settings_of(*WORDS)) == planned
    words = [word for word in WORDS if word.partition("=")[0] != other.partition("=")[0]]
    with pytest.raises(StoreError, match="planned by another bench"):
        recorded.recorded_plan(directory, read, settings_of(*words, other))


@pytest.mark.parametrize("version", [6, 7, 8])
def test_a_plan_of_an_earlier_format_is_gone_on_with(begun, version):
    directory, _, planned = begun
    path = directory / "run.json"
    run = json.loads(path.read_text())
    del run["plan"]["labels"], run["plan"]["filled"]
    for start in run["plan"]["starts"]:
        del start["deployment"]["adapters"], start["deployment"]["options"]["slots"]
        for cell in start["cells"]:
            del cell["scenario"]["width"], cell["scenario"]["ends_itself"]
    path.write_text(json.dumps(run | {"schema_version": version}))
    whole = recorded.recorded_plan(directory, store.read_run(directory).plan, settings_of(*WORDS))
    assert whole.starts == planned.starts


def test_a_plan_with_more_than_was_asked_for_is_not_gone_on_with(begun):
    directory, _, planned = begun
    first, *others = planned.starts
    cell = first.cells[0]
    for cells in ((*first.cells, replace(cell, number=99)), (cell, cell), (replace(cell, repeat=5),)):
        more = replace(planned, starts=(replace(first, cells=cells), *others))
        with pytest.raises(StoreError, match="planned by another bench"):
            recorded.recorded_plan(directory, more, settings_of(*WORDS))
    twice = replace(planned, starts=(*planned.starts, replace(first, index=99, cells=())))
    with pytest.raises(StoreError, match="planned by another bench"):
        recorded.recorded_plan(directory, twice, settings_of(*WORDS))


def test_a_cache_that_the_plan_made_smaller_is_kept_and_a_larger_one_refused(begun):
    directory, _, planned = begun
    asked = planned.starts[0].deployment.terms.kv_cache_tokens

    def with_cache(tokens):
        starts = []
        for start in planned.starts:
            terms = replace(start.deployment.terms, kv_cache_tokens=tokens)
            starts.append(replace(start, deployment=replace(start.deployment, terms=terms)))
        return replace(planned, starts=tuple(starts))

    smaller = with_cache(asked - 256)
    assert recorded.recorded_plan(directory, smaller, settings_of(*WORDS)) == smaller
    with pytest.raises(StoreError, match="planned by another bench"):
        recorded.recorded_plan(directory, with_cache(asked + 1), settings_of(*WORDS))


def test_a_run_of_another_machine_is_not_resumed(tmp_path):
    settings = settings_of(*WORDS)
    record = write_begun(tmp_path, settings, plan.make(settings))
    recorded.check_machine(tmp_path, store.read_run(tmp_path))
    machine = {**record.environment["machine"], "cpu_model": "another"}
    moved = replace(record, environment={**record.environment, "machine": machine})
    with pytest.raises(StoreError, match=r"begun on another machine .*cpu_model"):
        recorded.check_machine(tmp_path, moved)


def test_measured_time_is_that_of_all_starts_that_were_begun(begun):
    directory, _, planned = begun
    assert next_starts.measured_s(directory) == 0
    whole = make_run.start_record(planned.starts[0], 5 * S)  # ready after 3 s
    killed = replace(make_run.start_record(planned.starts[1], 500 * S), stopped_ns=None)
    mute = replace(make_run.start_record(planned.starts[2], S), phases=())
    whole = replace(whole, phases=(*whole.phases, store.Phase("stopping", 65 * S)))
    for record in (whole, killed, mute):
        make_run.write_start(directory, record)
    assert next_starts.measured_s(directory) == 63


def test_more_repeats_are_planned_after_what_is_there_and_what_is_missing(begun):
    directory, record, planned = begun
    keep(directory, planned.starts[0], planned.starts[0].cells[0], "failed")
    missing = next_starts.missing_starts(directory, record, planned)
    blocks = planned.blocks
    longer, whole, more = next_starts.with_repeats(record, planned, settings_of(*WORDS), blocks + 2, missing)
    assert (longer.plan.blocks, whole.blocks) == (blocks + 2, blocks + 2)
    assert longer.plan.starts == (*record.plan.starts, *more)
    assert longer.settings["repeats"] == [str(blocks + 2)]
    assert [start.repeat for start in more] == [blocks, blocks, blocks + 1, blocks + 1]
    numbers = [start.index for start in (*missing, *more)]
    assert len(set(numbers)) == len(numbers)
    assert min(start.index for start in more) > max(start.index for start in missing)
    # What is read back later is the same plan.
    again = recorded.recorded_plan(directory, longer.plan, settings_of(*WORDS))
    assert again.starts == longer.plan.starts
