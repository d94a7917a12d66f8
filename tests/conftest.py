"""Which tests must have the machine for themselves, and fixtures that several files share."""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_command import Place, bench, quick
from hypothesis import HealthCheck, settings
from quick_venv import make_quick_python

# `make test` runs the others four at a time, then these one by one: they compare instants, rates or CPU
# time with what should be, or need all processors. So do single tests of other files, which bear the mark.
ALONE = frozenset(
    """
    client clock end_to_end host load_benchmark load_models openloop receive sampling selftest waits
    """.split()  # noqa: SIM905 - a list of quoted words reads worse
)
# Of the others those that take longest: they come first, so that at the end no processor waits for one of
# them (`make test` has xdist keep this order).
LONGEST = """
    install load_worker decisions weights_hub scenarios_played quality_of_a_run terminal provision answers
    agreeing cut_short run hostile_runs outside_package attached sharing merge decisions_quality
    reports_compare reports_quality adding device_sample environment native_apis reports_checks ollama_wire
    merge_of_runs cli reports_comparisons bundle quality packages prefix_cache claiming reports_opening
    workers python_api probe python_file tgi_launcher add_torch_cpu guard again gpu reference_server
    json_ends weights budget llama_cpp_programs_live llama_cpp_live reports_bounds
    """.split()  # noqa: SIM905 - as above

# Of the same source, Python and Hypothesis much the same examples; CONTRIBUTING.md says what else they depend
# on. A failure prints how to have it again. `make test-long` tries more, with FUZZ_SEED others.
settings.register_profile(
    "quick",
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=10_000)
settings.load_profile("quick")


@pytest.hookimpl(trylast=True)  # after Hypothesis has loaded the profile that was asked for
def pytest_configure(config: pytest.Config) -> None:
    """Let --hypothesis-seed hold: Hypothesis takes none where examples are derandomized."""
    if config.getoption("--hypothesis-seed") is not None:
        settings.register_profile("seeded", settings.default, derandomize=False)
        settings.load_profile("seeded")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(_stem_of(item.path), len(ranks)))
    for item in items:
        if _stem_of(item.path) in ALONE:
            item.add_marker("alone")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only what is alone is asked for, read no test file that has none of it: most of 8 s."""
    if not config.option.markexpr.startswith("alone") or not collection_path.match("test_*.py"):
        return None
    is_alone = _stem_of(collection_path) in ALONE or "mark.alone" in collection_path.read_text()
    return None if is_alone else True


def _stem_of(path: Path) -> str:
    return path.stem.removeprefix("test_")


@pytest.fixture(scope="session", autouse=True)
def _disk_is_not_waited_for() -> Iterator[None]:
    """Nothing that a test writes must outlast a power cut, and waiting for the disk takes longer than all
    else of making a run. Processes that tests start do wait."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_quick_python(tmp_path_factory.mktemp("quick"))


@pytest.fixture
def quick_venv(quick_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test installs is made in a venv whose pip is there already."""
    monkeypatch.setattr(sys, "executable", str(quick_python))


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the reference engine: two cells of three conversations each. Tests copy it, and all of xdist's
    processes share it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place, made = Place(shared / "measured"), shared / "measured.made"
    with (shared / "measured.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(place.path, ignore_errors=True)  # of a process in which bench failed
            place.path.mkdir()
            bounds = ("load.concurrency=1,2", "load.conversations=3", "load.warmup=0s", "load.duration=10s")
            done = bench(place, "run", *quick(*bounds), "--output", "run", "--quiet")
            assert done.returncode == 0, done.stderr
            made.touch()
    return place.run_dir


@pytest.fixture
def run_copy(measured_run: Path, tmp_path: Path) -> Path:
    """A copy of it for this test alone, in tmp_path."""
    return Path(shutil.copytree(measured_run, tmp_path / "run"))
