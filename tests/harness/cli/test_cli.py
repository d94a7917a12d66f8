"""The real command: what it prints, how it exits, and that an interrupt at any moment leaves order."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from subprocess import PIPE, CompletedProcess, Popen

import pytest
from begun_run import begin
from bench_command import Place, begun, bench, ended, made, quick, side_by_side, told
from typer.testing import CliRunner
from waiting import wait_until

from serving_bench.harness.cli.app import COMMANDS, app
from serving_bench.harness.run.session import sole_writer
from serving_bench.harness.selftest import known_error
from serving_bench.harness.store import store

# --- interrupts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When a run is interrupted, and by what."""

    words: list[str]
    has_come: Callable[[Place], object]
    signal: signal.Signals


MOMENTS = {
    "start": Moment(
        quick("reference.start_delay=60s"),
        lambda place: any(start["pid"] for start in place.starts()),
        signal.SIGINT,
    ),
    "window": Moment(
        quick("load.concurrency=1,2", "load.duration=3s", "repeats=2"),
        lambda place: place.rows_so_far(2) >= 5,
        signal.SIGINT,
    ),
    "warm-up": Moment(quick("load.warmup=60s"), lambda place: place.rows_so_far(1) >= 2, signal.SIGTERM),
}


@dataclass(frozen=True)
class Interrupted:
    place: Place
    done: CompletedProcess[str]


def interrupt(name: str, place: Place) -> Interrupted:
    """Only bench gets the signal, once the moment has come."""
    with begun(place, "run", *MOMENTS[name].words, "--output", "run") as process:
        wait_until(lambda: MOMENTS[name].has_come(place), 160)
        process.send_signal(MOMENTS[name].signal)
        return Interrupted(place, ended(process))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> dict[str, Interrupted]:
    stories = {name: partial(interrupt, name) for name in MOMENTS}
    with side_by_side(tmp_path_factory.mktemp("moment"), stories) as begun_now:
        return {name: story.result() for name, story in begun_now.items()}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_ends_everything_and_writes_the_report_of_what_there_is(interrupted, moment):
    place, done = interrupted[moment].place, interrupted[moment].done
    assert done.returncode == 128 + MOMENTS[moment].signal
    assert sum(line.startswith("interrupted") for line in done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert place.run()["status"] == "interrupted"
    assert place.starts()[-1]["status"] == "interrupted"
    place.wait_until_empty()
    if moment == "window":
        assert "This run was cut short." in place.report()
        assert done.stdout == "run/report.html\n"
    else:
        assert "nothing was measured yet; `bench run --resume run` goes on with it" in done.stderr
        assert (done.stdout, (place.run_dir / "report.html").exists()) == ("", False)


def test_an_interrupt_before_ready_leaves_no_cell(interrupted):
    assert interrupted["start"].place.cells() == {}


def test_an_interrupt_in_the_warm_up_keeps_its_rows(interrupted):
    place = interrupted["warm-up"].place
    [cell] = place.cells().values()
    assert (cell["status"], cell["error"]) == ("interrupted", "interrupted")
    rows = store.read_requests(store.cell_dir(place.run_dir, 1)).to_pylist()
    assert len(rows) >= 2
    assert not any(row["in_window"] for row in rows)
    assert not list(place.run_dir.glob("cells/*/rows.jsonl"))


def test_an_interrupt_in_a_window_keeps_the_finished_cell_and_the_rows_of_its_own(interrupted):
    place = interrupted["window"].place
    assert [cell["status"] for _, cell in sorted(place.cells().items())] == ["completed", "interrupted"]
    rows = store.read_requests(store.cell_dir(place.run_dir, 2)).to_pylist()
    assert len(rows) >= 5
    assert any(row["in_window"] for row in rows)
    assert {row["outcome"] for row in rows} <= {"ok", "cancelled"}
    assert ">interrupted<" in place.report()
    assert ">not measured<" in place.report()


# --- mistakes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Place:
    place = made(tmp_path_factory.mktemp("mistakes") / "p")
    (place.path / "full").mkdir()
    (place.path / "full" / "something").write_text("kept")
    (place.path / "broken.yaml").write_text("load:\n  concurrency: 1\n")
    (place.path / "bad.jsonl").write_text('{"prompt": "hello"}\n{"prompt": 1}\n')
    return place


MISTAKES = [
    ("load.concurency=1", "load.concurency=1: no such key; did you mean load.concurrency? "),
    ("engine=vlm", "engine=vlm: no such engine; did you mean vllm? choose from anthropic, gemini"),
    ("load.concurrency=0", "load.concurrency=0: must be 1 or more"),
    ("load.concurrency=1 load.rate=2", "exclude each other"),
    ("nonsense", "nonsense: not of the form key=value"),
    ("engine=reference --only-repeat 0", "--only-repeat 0: must be 1 or more\n"),
    ("engine=openai", "engine.base_url"),
    ("scenario=file scenario.path=absent.jsonl", "absent.jsonl: cannot be read"),
    ("scenario=file scenario.path=bad.jsonl", "bad.jsonl, line 2"),
    ("--from absent.yaml", "absent.yaml: cannot be read"),
    ("--from broken.yaml", "load is nested"),
    ("engine=reference --output full", "full: exists and is not empty"),
    ("--resume full", "run.json is missing"),
    ("--resume full --output other", "--resume takes a run's own settings"),
]


def test_mistakes_are_one_line_and_start_nothing(here):
    before = sorted(here.path.rglob("*"))
    for words, said in MISTAKES:
        done = told(here, "run", *words.split())
        assert (done.returncode, done.stdout) == (2, ""), words
        assert said in done.stderr, words
        assert done.stderr.count("\n") == 1, done.stderr
    assert sorted(here.path.rglob("*")) == before


def test_a_mistake_is_one_line_of_the_real_command(here):
    done = bench(here, "run", MISTAKES[0][0])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(MISTAKES[0][1])


def test_a_resume_beside_another_bench_is_refused_before_it_plans(here):
    begin(here.path / "held")
    with sole_writer(here.path / "held"):
        done = told(here, "run", "--resume", "held")
    assert (done.returncode, done.stdout) == (2, "")
    owner = rf"process {os.getpid()} on \S+ since \S+"
    said = rf"held: another bench \({owner}\) is measuring this run; wait until it ends\n"
    assert re.fullmatch(said, done.stderr)


def test_a_new_run_where_another_bench_has_begun_is_told_to_go_elsewhere(here):
    with sole_writer(here.path / "begun"):
        done = told(here, "run", *quick(), "--output", "begun")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(" is measuring this run; give another --output\n")


def test_nothing_to_run_gives_the_reasons(here):
    done = told(here, "run", "engine=llama_cpp", "quantization=awq")
    assert done.returncode == 2
    assert done.stderr.startswith("nothing to run: llama.cpp serves GGUF files; awq is stored as safetensors")
    done = told(here, "run", "engine=llama_cpp,vllm", "quantization=gptq")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nothing to run: skipped llama_cpp gptq: " in done.stderr
    assert "; skipped vllm gptq: " in done.stderr
    assert not (here.path / "results").exists()


def test_a_model_that_is_not_known_is_named_first(here):
    done = told(here, "run", "model=smolm2")
    assert done.stderr.startswith("model=smolm2: no such model; did you mean smollm2-135m? ")


@pytest.mark.parametrize("words", [("report", "full"), ("compare", "full", "full"), ("list", "nonesuch"),
                                   ("install", "nonesuch"), ("install", "openai", "--program", "x"),
                                   ("prepare", "model=nonesuch"), ("prepare", "engine=reference"),
                                   ("prepare", "quantization=int3"), ("plan", "device=cuda"),
                                   ("plan", "engine=llama_cpp", "llama_cpp.program=/absent/server"),
                                   ("plan", "engine=openai"), ("plan", "engine.memory_limit=8GiB"),
                                   ("plan", "engine.chat_template=absent.jinja")])  # fmt: skip
def test_mistakes_of_other_commands_are_one_line(here, words):
    done = told(here, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr


# --- what is printed ------------------------------------------------------------------------------


def test_help_lists_the_commands(here):
    done = bench(here, "--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command):
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert f"Example:  bench {command}" in done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_all_commands_says_of_each_what_its_own_help_begins_with(command):
    _usage, first, *_ = CliRunner().invoke(app, [command, "--help"]).output.strip().split("\n\n")
    assert " ".join(first.split()) == COMMANDS[command].summary


def test_help_imports_no_command():
    loaded = (
        "import sys; from typer.testing import CliRunner; from serving_bench.harness.cli.app import app; "
    )
    loaded += "CliRunner().invoke(app, ['--help']); "
    loaded += (
        "sys.exit(bool({'serving_bench.harness.settings', 'serving_bench.engines', 'rich'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", loaded], check=True)


@pytest.mark.parametrize(
    ("words", "told_to_read"),
    [
        (["report"], "bench report --help"),
        (["run", "--resume"], "bench run --help"),
        (["view", "--nope"], "bench view --help"),
        (["nope"], "bench --help"),
    ],
)
def test_a_usage_error_leads_to_the_help_of_its_command(here, words, told_to_read):
    done = bench(here, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"See `{told_to_read}`.\n")


def test_plan_is_json_and_starts_nothing(here):
    before = sorted(here.path.rglob("*"))
    done = bench(here, "plan", *quick("reference.label=a,b", "repeats=2"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    labels = [start["deployment"]["label"].rpartition("=")[2] for start in plan["starts"]]
    assert labels == ["a", "b", "b", "a"]
    assert plan["estimate_s"] > 0
    assert plan["quality"] is None
    unmatched = {each["term"]: each["deployments"] for each in plan["unmatched"]}
    assert unmatched["engine.prefix_cache"] == ["reference label=a", "reference label=b"]
    assert sorted(here.path.rglob("*")) == before
    assert "01-reference-label-a" in told(here, "plan", *quick("reference.label=a,b")).stdout


@pytest.mark.parametrize(
    "what", ["engines", "tools", "scenarios", "quantizations", "models", "metrics", "keys"]
)
def test_lists_are_json(what):
    done = CliRunner().invoke(app, ["list", what, "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert all(row[what.removesuffix("s")] for row in json.loads(done.stdout))


def test_doctor_is_json(here):
    done = bench(here, "doctor", "--json")
    findings = json.loads(done.stdout)
    assert findings
    assert done.returncode == any(finding["state"] == "problem" for finding in findings)


def test_a_study_gives_the_keys_and_the_command_line_wins(here):
    (here.path / "study.yaml").write_text("engine: reference\nload.concurrency: [1, 2]\nrepeats: 3\n")
    done = told(here, "plan", "--from", "study.yaml", "repeats=1", "--json")
    (here.path / "study.yaml").unlink()
    [start] = json.loads(done.stdout)["starts"]
    assert sorted(cell["load"]["concurrency"] for cell in start["cells"]) == [1, 2]


def test_the_version_is_told_with_pythons_and_nothing_else(tmp_path):
    done = told(made(tmp_path / "here"), "--version", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"bench {known_error.version()}, Python {platform.python_version()}\n"


def test_ctrl_c_while_bench_is_still_imported_is_told():
    """Its import waits here, which stands for a slow one."""
    slow = (
        "import serving_bench.__main__, sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'serving_bench.harness.cli.app':\n"
        "            print('importing', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "serving_bench.__main__.main()\n"
    )
    with Popen([sys.executable, "-c", slow], stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert (process.communicate()[1], process.returncode) == ("interrupted\n", 130)
