"""Two benches at once: on one run, on two runs beside each other, and on one thing to install or prepare."""

import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bench_command import Place, bench, kill_in_second_cell, made, quick
from blows import SEED, files_of_finished_cells, is_complete
from waiting import patient

from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.store import checksums, store

# Of a bench that a second one begins beside.
OFFSET_S = 2.0
MODEL = Path("weights/smollm2-135m")
Done = subprocess.CompletedProcess[str]


def both(place: Place, *words: str, offset_s: float = 0.0) -> list[Done]:
    """Run one command twice at once, the second a little later."""

    def run(wait_s: float) -> Done:
        time.sleep(wait_s)  # the offset is what is tried, and no condition
        return bench(place, *words)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, (0.0, offset_s)))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that was killed in its second cell."""
    place = made(tmp_path_factory.mktemp("half") / "p")
    kill_in_second_cell(place, 2)
    return place


def race(half: Place, place: Place, offset_s: float) -> None:
    """Go on with a run twice at once: one measures what it lacks, the other nothing."""
    shutil.copytree(half.run_dir, place.run_dir)
    kept = dict(files_of_finished_cells(place))
    done = both(place, "run", "--resume", "run", offset_s=patient(offset_s))
    said = [each.stderr for each in done]
    codes = sorted(each.returncode for each in done)
    assert codes in ([0, 0], [0, 2]), said
    other = "is measuring this run; wait until it ends" if codes[1] else "every cell is completed"
    assert sum(other in each for each in said) == 1, said
    assert "Traceback" not in "".join(said)
    assert is_complete(place)
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(place.starts()) == 2, "what the run lacked was measured twice"
    assert sorted(path.name for path in (place.run_dir / "cells").iterdir()) == ["001", "002", "002.attempt1"]
    assert not checksums.findings(place.run_dir)


@pytest.mark.faults
def test_of_two_benches_one_goes_on_with_a_run(half: Place, tmp_path: Path) -> None:
    race(half, made(tmp_path / "p"), 0.0)


@pytest.mark.faults
def test_resumes_at_random_moments_measure_what_a_run_lacks_once(half: Place, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    offsets = [rng.uniform(0, OFFSET_S) for _ in range(8)]
    print(f"seed {SEED}")
    with ThreadPoolExecutor(2) as pool:
        places = [made(tmp_path / str(number)) for number in range(len(offsets))]
        list(pool.map(race, [half] * len(places), places, offsets))


@pytest.mark.faults
def test_benches_beside_each_other_measure_each_its_own_run(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda label: bench(place, "run", *quick(f"reference.label={label}")), "abc"))
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    runs = [place.path / each.stdout.strip() for each in done]
    assert sorted(path.parent for path in runs) == sorted((place.path / "results").iterdir())
    for path, label in zip(runs, "abc", strict=True):
        (start,) = store.read_starts(path.parent)
        assert (start.deployment.options["label"], start.status) == (label, "completed")
        assert {
            row["outcome"] for row in store.read_requests(store.cell_dir(path.parent, 1)).to_pylist()
        } == {"ok"}
        assert not checksums.findings(path.parent)
    place.wait_until_empty()


def test_of_two_new_runs_in_one_folder_one_is_measured(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    done = both(place, "run", *quick(), "--output", "run")
    assert sorted(each.returncode for each in done) == [0, 2], [each.stderr for each in done]
    (refused,) = [each.stderr for each in done if each.returncode]
    assert "is measuring this run" in refused or "exists and is not empty" in refused
    assert is_complete(place)
    assert len(place.starts()) == 1


@pytest.mark.faults
def test_an_engine_that_two_install_at_once_is_whole(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    done = both(place, "install", "reference", "--program", "native")
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    ran = bench(place, "run", *quick("reference.program=native"), "--output", "run")
    assert ran.returncode == 0, ran.stderr
    assert not list(place.cache.rglob("*.part"))


@pytest.mark.faults
def test_weights_that_two_prepare_at_once_are_made_once(tmp_path: Path) -> None:
    place, model = made(tmp_path / "p"), cache_dir() / MODEL
    (place.cache / MODEL).mkdir(parents=True)
    for path in (*model.glob("*-f16.gguf*"), model / "LICENSE"):
        shutil.copy(path, place.cache / MODEL)
    (place.cache / "engines").symlink_to(cache_dir() / "engines")
    done = both(place, "prepare", "engine=llama_cpp", "quantization=gguf-q8_0")
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    assert done[0].stdout == done[1].stdout
    made_ones = {path.name for path in (place.cache / MODEL).glob("*q8_0*")}
    assert made_ones == {"smollm2-135m-q8_0.gguf", "smollm2-135m-q8_0.gguf.json"}
