"""A package of somebody else's, installed beside bench in an environment of its own, and what bench makes of
its entry points: an engine, a scenario, metrics, two quantizations, and some that are broken."""

import csv
import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from venv import EnvBuilder

import pytest
from bench_command import Place
from checkpoint_files import write_checkpoint
from make_run import MS, S, row, starts_run
from places import TESTS
from uv import find_uv_bin
from weights_steps import environment, prepared

from serving_bench.engines import ENGINES, SECTIONS
from serving_bench.engines.model import sizes
from serving_bench.harness.contracts import Reason, Weights
from serving_bench.harness.install.builds import weights_needed
from serving_bench.harness.settings.keys import fields

SHORT = (
    "load.concurrency=2", "load.duration=1s", "load.warmup=0.2s", "load.min_requests=1", "repeats=1",
    "device=cpu", "guard=off",
)  # fmt: skip
OURS = "bench-outside 1.2"
BROKEN = [
    f"{OURS}: serving_bench.engines broken is left out: AttributeError: module 'bench_outside.engine' has no "
    "attribute 'NOTHING' (__init__.py, line ",
    f"{OURS}: serving_bench.engines load is left out: its name must be of a-z, 0-9 and _, and no section of "
    "keys",
    f"{OURS}: serving_bench.engines reference is left out: bench has that name already",
    f"{OURS}: serving_bench.scenarios text is left out: bench_outside.scenario:conversations is no Scenario",
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has the package, and all that this one has."""
    folder = tmp_path_factory.mktemp("outside")
    EnvBuilder(symlinks=True).create(folder / "venv")
    (site,) = folder.glob("venv/lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    shutil.copytree(TESTS / "data" / "outside_package", folder / "source")
    python = folder / "venv" / "bin" / "python"
    install = [find_uv_bin(), "--quiet", "--no-config", "pip", "install", "--offline", "--no-deps"]
    argv = [*install, "--no-build-isolation", "--python", python, folder / "source"]
    subprocess.run(argv, check=True)
    return python


def bench(python: Path, *words: object, at: Place | None = None) -> subprocess.CompletedProcess[str]:
    command = [python, "-P", "-m", "serving_bench", *map(str, words)]
    variables = {**(at.environment() if at else os.environ), "COLUMNS": "200"}
    cwd = at.path if at else python.parent
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=variables, timeout=120)


@pytest.mark.parametrize(
    ("what", "key", "names"),
    [
        ("engines", "engine", {"echo"}),
        ("scenarios", "scenario", {"sums"}),
        ("metrics", "metric", {"streaming_s", "lost_s"}),
        ("quantizations", "quantization", {"w8a8", "gguf-iq4_xs"}),
    ],
)
def test_a_list_says_which_package_something_is_of(
    python: Path, what: str, key: str, names: set[str]
) -> None:
    table = bench(python, "list", what)
    assert table.returncode == 0, table.stderr
    assert table.stdout.count(f"(of {OURS})") == len(names)
    listed = json.loads(bench(python, "list", what, "--json").stdout)
    assert {each[key]: each["origin"] for each in listed if each["origin"]} == dict.fromkeys(names, OURS)
    assert len(listed) > len(names) + 4


def test_a_broken_entry_point_is_one_line_and_stops_nothing(python: Path) -> None:
    done = bench(python, "list", "keys", "--json")
    said = sorted(done.stderr.splitlines())
    assert len(said) == len(BROKEN)
    assert all(line.startswith(begin) for line, begin in zip(said, BROKEN, strict=True)), said
    listed = {each["key"]: each for each in json.loads(done.stdout)}
    assert listed["echo.ttft"]["takes"] == "a duration, such as 500ms or 20s"
    assert listed["echo.slots"]["help"] == "The generations at once."
    assert "load.slots" not in listed
    wrong = bench(python, "plan", "engine=echo", "echo.slots=0")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (2, "echo.slots=0: must be 1 or more")


def test_its_engine_is_measured_with_its_scenario_and_resumed_only_with_the_same_version(
    python: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path)
    asked = ("engine=echo", "scenario=sums", "scenario.digits=2", "echo.note=own", *SHORT)
    done = bench(python, "run", *asked, "--output", place.run_dir, at=place)
    assert done.returncode == 0, done.stderr
    assert place.cells()[1]["scenario"]["options"]["digits"] == 2
    assert place.run()["environment"]["outside_packages"] == {"engine echo": OURS, "scenario sums": OURS}
    resumed = bench(python, "run", "--resume", place.run_dir, "repeats=2", at=place)
    assert resumed.returncode == 0, resumed.stderr

    # Another user's bench would ask before it takes a text of a key without a class.
    stranger = Place(tmp_path / "stranger")
    stranger.path.mkdir()
    refused = bench(python, "run", "--resume", place.run_dir, "repeats=3", at=stranger)
    assert refused.returncode == 2
    assert "asks for echo.note=own; no file decides that: type it if you mean it" in refused.stderr

    (metadata,) = python.parents[1].glob("lib/python*/site-packages/bench_outside-*/METADATA")
    before = metadata.read_text()
    metadata.write_text(before.replace("Version: 1.2", "Version: 1.3"))
    try:
        other = bench(python, "run", "--resume", place.run_dir, "repeats=3", at=place)
    finally:
        metadata.write_text(before)
    assert other.returncode == 2
    said = "engine echo was bench-outside 1.2, and is bench-outside 1.3 now; begin a new run"
    assert other.stderr.splitlines()[-1] == f"{place.run_dir}: {said}"


def test_its_distribution_has_percentiles_wherever_those_of_bench_are(python: Path, tmp_path: Path) -> None:
    rows = [row(k, 102 * S + k * 200 * MS) for k in range(24)]
    runs = [starts_run(tmp_path / name, rows, rows, rows) for name in "ab"]
    table = bench(python, "report", runs[0], "--format", "csv", "--table", "values")
    values = {each["metric"]: each for each in csv.DictReader(table.stdout.splitlines())}
    assert float(values["streaming_s.p50"]["value"]) == pytest.approx(0.08), table.stderr
    assert values["streaming_s.p90"]["value"] == ""
    assert float(values["streaming_s.p90"]["pooled"]) == pytest.approx(0.08)
    assert values["lost_s.p50"]["why"].startswith("LookupError: no such column (metrics.py, line ")

    compared = bench(python, "compare", *runs, "compare.metric=streaming_s.p50", "--json")
    rows = {each["metric"]: each for each in json.loads(compared.stdout)["cases"][0]["rows"]}
    assert rows["streaming_s.p50"]["verdict"], compared.stderr
    gated = bench(python, "gate", *runs, "gate.metric=streaming_s.p50")
    assert "streaming_s.p50" in gated.stdout, gated.stderr
    neither = f"{OURS}: serving_bench.metrics neither_s is left out: give `value`, or `observations` with "
    assert [each for each in table.stderr.splitlines() if each.startswith(neither)]


def test_its_quantization_is_made_by_its_program_and_served_by_an_engine_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TESTS / "data" / "outside_package" / "bench_outside"
    recipe = sizes.Recipe(source / "make_w8a8.py", {}, "tool")
    row = sizes.Quantization("w8a8", 8.0, "safetensors", "", recipe, ("vllm",))
    monkeypatch.setitem(sizes.QUANTIZATIONS, "w8a8", row)
    own = write_checkpoint(tmp_path / "own")
    weights = Weights(str(own), "w8a8", "safetensors")
    tool = environment(tmp_path / "tool", recipe.script.read_text())
    recipe.environments["cpu"] = recipe.environments["cuda"] = object()
    made = prepared(weights, tmp_path / "cache", lambda spec: tool)
    manifest = json.loads(made.path.with_name(f"{made.path.name}.json").read_text())
    assert (manifest["quantization"], manifest["made_by"]) == ("w8a8", "tool 1.2")
    assert made.path.name.endswith("-w8a8")
    assert weights_needed("vllm", str(own), "w8a8") == weights
    assert isinstance(weights_needed("sglang", str(own), "w8a8"), Reason)


def test_an_engine_cannot_be_named_like_a_section_of_keys() -> None:
    sections = {key.partition(".")[0] for key in fields() if "." in key}
    assert sections - ENGINES.keys() == set(SECTIONS)
