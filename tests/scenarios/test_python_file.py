"""scenario=FILE.py and scenario=package:NAME: played by load processes, recorded, and refused in one line."""

import hashlib
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from bench_command import Place, bench, quick, told
from places import TESTS

from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.strangers import belief
from serving_bench.scenarios import SCENARIOS

SOURCE = TESTS / "data" / "outside_package" / "bench_outside" / "scenario.py"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def file(place: Place) -> Path:
    return Path(shutil.copy(SOURCE, place.path / "mine.py"))


def test_a_file_is_played_and_recorded_and_resumed_only_as_it_was(place: Place, file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    words = quick("scenario=./mine.py", "scenario.digits=2")
    done = bench(place, "run", *words, "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    cell, run = place.cells()[1], place.run()
    assert (cell["status"], cell["scenario"]["label"]) == ("completed", "mine.py")
    assert cell["scenario"]["options"]["digits"] == 2
    assert run["settings"]["scenario"][0].endswith("/mine.py")
    assert run["environment"]["outside_packages"] == {f"scenario {file}": f"SHA-256 {digest}"}
    shown = bench(place, "run", "--resume", place.run_dir, "repeats=2")
    assert shown.returncode == 0, shown.stderr

    file.write_text(file.read_text() + "# another one\n")
    now = hashlib.sha256(file.read_bytes()).hexdigest()
    refused = bench(place, "run", "--resume", place.run_dir, "repeats=3")
    said = f"scenario {file} was SHA-256 {digest}, and is SHA-256 {now} now; begin a new run"
    assert (refused.returncode, refused.stderr) == (2, f"{place.run_dir}: {said}\n")


def test_a_module_that_is_installed_is_taken_by_its_name(place: Place) -> None:
    name = "serving_bench.scenarios.burst:SCENARIO"
    done = bench(place, "plan", "engine=reference", f"scenario={name}", "repeats=1")
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def test_a_module_that_only_the_folder_of_a_script_has_is_refused(file: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(
        file.parent
    )  # as a notebook and `python script.py` do; a load process does not
    with pytest.raises(UserError, match=r"no module mine is installed; install it, or give its ./FILE.py"):
        SCENARIOS["mine:SCENARIO"]


def test_a_changed_file_is_read_again(file: Path) -> None:
    assert [each.name for each in fields(SCENARIOS[str(file)].options)].count("digits") == 1
    file.write_text(file.read_text().replace("digits", "figures"))
    assert [each.name for each in fields(SCENARIOS[str(file)].options)].count("digits") == 0


def test_what_a_later_conversation_raises_is_one_line(place: Place, file: Path) -> None:
    file.write_text(file.read_text().replace("    while True:", "    for n in (1, 0):\n        1 // n"))
    done = told(place, "describe", "scenario=mine.py")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "mine.py: ZeroDivisionError: integer division or modulo by zero (mine.py, line 18)\n"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "no such file; give one with SCENARIO = Scenario(...)"),
        ("x = (", "'(' was never closed (wrong.py, line 1)"),
        ("", "has no SCENARIO = Scenario(...)"),
        ("SCENARIO = 3", "has no SCENARIO = Scenario(...)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero (wrong.py, line 2)"),
        ("raise SystemExit(3)", "SystemExit: 3 (wrong.py, line 1)"),
    ],
)
def test_what_is_no_scenario_is_refused_in_one_line(place: Place, source: str | None, said: str) -> None:
    if source is not None:
        (place.path / "wrong.py").write_text(source)
    done = told(place, "plan", "engine=reference", "scenario=wrong.py")
    assert (done.returncode, done.stderr) == (2, f"scenario=wrong.py: {said}\n")


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ("", ("scenario.digits=0",), "scenario.digits=0: must be 1 or more"),
        ("", ("scenario.digit=2",), "scenario.digit=2: no such key; did you mean scenario.digits? "),
        ("return iter(())", (), "/mine.py: it yields no Conversation"),
        ("raise KeyError('a')", (), "/mine.py: KeyError: 'a' (mine.py, line "),
    ],
)
def test_a_mistake_in_a_file_or_its_keys_is_one_line(
    place: Place, file: Path, change: str, words: tuple[str, ...], said: str
) -> None:
    text = file.read_text()
    file.write_text(text.replace("    while True:", f"    {change}\n    while True:") if change else text)
    if change.startswith("return"):
        file.write_text(file.read_text().replace("yield", "return"))
    done = bench(place, "plan", "engine=reference", "scenario=mine.py", *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_two_files_of_one_name_are_refused(place: Place, file: Path) -> None:
    (place.path / "other").mkdir()
    shutil.copy(file, place.path / "other" / "mine.py")
    done = bench(place, "plan", "engine=reference", "scenario=mine.py,other/mine.py")
    assert done.returncode == 2
    assert done.stderr.endswith("two have one name; rename one\n")


@pytest.mark.parametrize("name", ["mine.py", "/tmp/mine.py", "os:system", "a.b:C"])
def test_no_file_of_a_stranger_decides_whose_code_runs(name: str) -> None:
    assert belief("scenario", name) == "asked"
    assert belief("scenario", "burst") == "taken"
    # Keys of a scenario that is not known here.
    assert belief("scenario.of_that_file", 3) == "asked"
