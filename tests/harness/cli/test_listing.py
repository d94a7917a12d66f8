"""What `bench plan` and `bench list` say."""

import json
import os
import re
import subprocess
from pathlib import Path
from subprocess import PIPE

import pytest
from bench_command import BENCH, Place, printed, told
from toy_engine import Toy

from serving_bench import engines
from serving_bench.harness.cli.commands.listing import facts_of, list_command
from serving_bench.harness.cli.commands.planning import print_plan
from serving_bench.harness.contracts import STARTS_NEEDED, InstallSpec, Tuned
from serving_bench.harness.errors import UserError
from serving_bench.harness.install.builds import (
    engines_here,
    spec_of,
    tools_here,
    version_of,
)
from serving_bench.harness.install.install import environment_dir
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.candidates import CONTEXT_LENGTH, SPECULATIVE_TOKENS
from serving_bench.harness.settings import config, overrides


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    return tmp_path


def _spec(environment: str, *, is_built: bool = False) -> InstallSpec:
    lock = Path(__file__)  # any file: nothing is installed from it
    return InstallSpec(environment, lock, "", 2 << 20, is_built=is_built)


def reference_text(*lines: str) -> str:
    return planned_text("engine=reference", "repeats=1", *lines)


def planned_text(*lines: str) -> str:
    return printed(200, print_plan, plan.make(config.settings(overrides.parse(list(lines)))))


def listed(what: str) -> str:
    return printed(100, list_command, what)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["load.concurrency=1"], ["1 user ", "1.5 s + 8 s"]),
        (["load.rate=120/min", "load.arrival=constant"], ["2/s constant", "1.5 s + 8 s"]),
        (["load.rate=2", "load.arrival=gamma", "load.burstiness=0.5"], ["2/s gamma 0.5"]),
        (["load.ramp_up=3s", "load.ramp_down=4s"], ["3 s + 1.5 s + 8 s + 4 s"]),
        (["load.conversations=9"], ["1.5 s + 9 conversations"]),
        (["load.conversations=9", "load.duration=5s"], ["1.5 s + 5 s or 9 conversations"]),
    ],
)
def test_a_plan_says_how_load_arrives_and_what_ends_it(lines: list[str], said: list[str]) -> None:
    text = reference_text(*lines)
    assert all(part in text for part in said), text


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["load.concurrency=1,4"], 4),
        (["load.rate=9"], 122),
        (["load.rate=9", "engine.concurrent_sequences=3"], 3),
    ],
)
def test_a_plan_says_how_many_requests_are_served_at_once(lines: list[str], count: int) -> None:
    assert f", engine.concurrent_sequences={count}, " in reference_text(*lines)


def test_the_keys_say_what_decides_over_the_requests_served_at_once() -> None:
    (default,) = [row["default"] for row in facts_of("keys") if row["key"] == "engine.concurrent_sequences"]
    assert default == "largest load.concurrency x scenario.parallel, or by load.rate"


def test_a_trace_is_played_whole(tmp_path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,input_length,output_length\n0,5,2\n4000,5,2\n")
    text = reference_text("scenario=trace", f"scenario.path={path}", "load.speedup=2")
    assert "trace x2" in text
    assert "0 s + the whole trace" in text
    assert "about 8 s" in text  # the start, 2 s of trace, and what a cell takes


def test_the_keys_say_what_they_take() -> None:
    takes = {row["key"]: row["takes"] for row in facts_of("keys")}
    assert takes["load.ramp"] == "linear or steps"
    assert takes["load.arrival"] == "constant, poisson, gamma, trace or batch"
    assert takes["load.rate"] == "a rate, such as 2/s or 90/min"
    assert takes["load.warmup"] == "a duration, such as 500ms or 20s"
    assert takes["load.conversations"] == "a whole number"
    assert takes["load.keep_bytes"] == "true or false"
    length = "a length: 512, 256..1024, lognormal:512:0.5 or FILE.csv:COLUMN"
    assert takes["scenario.prefix_tokens"] == takes["scenario.steps"] == length
    assert takes["scenario.output_tokens"] == f"a whole number or {length}"
    assert takes["scenario.turns"] == "a whole number"
    assert takes["engine.launcher"] == "native or docker"
    assert takes["model"] == "a name of `bench list models`, a path, or hf:organisation/name"
    assert [key for key, said in takes.items() if not said] == []


def test_the_keys_say_what_they_mean_in_a_sentence() -> None:
    helps = {row["key"]: row["help"] for row in facts_of("keys")}
    assert [key for key, said in helps.items() if not re.fullmatch(r"[A-Z].*\.", said)] == []


def test_the_keys_that_a_plan_fills_say_with_what() -> None:
    defaults = {row["key"]: row["default"] for row in facts_of("keys")}
    assert defaults["engine.context_length"] == str(CONTEXT_LENGTH)
    assert defaults["engine.speculative_tokens"] == f"{SPECULATIVE_TOKENS} with engine.speculation"


def test_the_keys_say_their_defaults() -> None:
    defaults = {row["key"]: row["default"] for row in facts_of("keys")}
    assert (defaults["load.warmup"], defaults["load.grace"], defaults["engine.dtype"]) == (
        "1.5s",
        "null",
        "null",
    )


def test_the_keys_of_an_engine_say_which_programs_there_are(toy: Toy) -> None:
    takes = {row["key"]: row["takes"] for row in facts_of("keys")}
    assert takes["toy.program"] == "first or second or a path"
    assert takes["toy.environment"] == "a directory"


def test_a_plan_says_what_is_told_alike_and_what_cannot_be_matched(toy: Toy) -> None:
    words = ["engine=toy", "quantization=fp16", "load.concurrency=2", "engine.context_length=512"]
    text = planned_text(*words, "fairness=matched,stock")
    assert (
        "fairness=matched: engine.context_length=512, engine.concurrent_sequences=2, "
        "engine.kv_cache_tokens=1024, engine.prefix_cache=true\n"
    ) in text
    assert "fairness=stock: engine.context_length=512\n" in text
    not_matched = "not matched, toy fp16 fairness=matched: engine.kv_cache_tokens, toys remember nothing"
    assert text.count("not matched") == 1
    assert not_matched in text


def test_a_plan_says_what_a_tuned_set_adds_and_who_recommends_it(toy: Toy) -> None:
    toy.tuned = Tuned("large batches", {"batch": 64}, "the toys' handbook")
    words = ["engine=toy", "quantization=fp16", "fairness=tuned"]
    said = 'fairness=tuned adds to toy "large batches": toy.batch=64{}; source: the toys\' handbook\n'
    assert planned_text(*words).count(said.format("")) == 1
    assert said.format("").replace("64", "8 (given)") in planned_text(*words, "toy.batch=8")
    assert "adds to toy" not in planned_text("engine=toy", "quantization=fp16")


def test_a_plan_says_that_start_up_is_not_in_its_time() -> None:
    text = reference_text("load.concurrency=1")
    assert "1 start, 1 cell, about 16 s, plus each engine's own start-up\n" in text
    text = planned_text("engine=openai", "engine.base_url=http://h/v1", "model=m", "repeats=1")
    assert "start-up" not in text


def test_a_plan_of_each_engines_own_defaults_says_so() -> None:
    assert "fairness=stock: each engine's own defaults" in reference_text("fairness=stock")


def test_engines_say_what_is_here_and_what_would_install_the_rest(tmp_path: Path, toy: Toy) -> None:
    first, second = _spec("toy-first-cpu"), _spec("toy-second-cpu", is_built=True)
    toy.installs = {("first", "cpu"): first, ("second", "cpu"): second}
    environment_dir(tmp_path, second).mkdir(parents=True)
    [here] = [each for each in engines_here(tmp_path, has_device=False) if each.engine == "toy"]
    assert here.launchers == ("native", "docker")
    assert [(each.state, each.install, each.compiles) for each in here.programs] == [
        ("not installed", "bench install toy", False),
        ("other", "bench install toy --program second", True),
    ]
    toy.installs = {}
    [here] = [each for each in engines_here(tmp_path, has_device=True) if each.engine == "toy"]
    assert [each.state for each in here.programs] == ["none", "none"]
    assert here.programs[0].reason == "there is no first toy for a cpu device"


def test_engines_are_a_table_that_fits_a_terminal(toy: Toy, cache: Path) -> None:
    toy.installs = {("first", "cpu"): _spec("toy-first-cpu")}
    text = listed("engines")
    assert "not installed: `bench install toy` (2.0 MiB)" in text
    lines = text.splitlines()
    assert "no: there is no second toy for a cpu device" in next(each for each in lines if "  second" in each)
    assert any(line.split() == ["toy", "process,", "container", "0", "of", "2", "programs"] for line in lines)
    assert any(line.split() == ["openai", "runs", "already", "needs", "nothing"] for line in lines)
    assert any(line.split() == ["toy", *toy.description.split()] for line in lines)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("what", "width"), [("metrics", 80), ("scenarios", 80), ("keys", 80), ("models", 80), ("keys", 120)]
)
def test_lists_fit_their_width_and_keep_every_word(what: str, width: int, cache: Path) -> None:
    lines = printed(width, list_command, what).splitlines()
    assert max(map(len, lines)) <= width
    told = "".join("".join(lines).split())  # a word that is wider than its column is cut
    column = {"metrics": "formula", "scenarios": "description", "keys": "key", "models": "model"}[what]
    facts = [row if isinstance(row, dict) else vars(row) for row in facts_of(what)]
    assert [row[column] for row in facts if "".join(row[column].split()) not in told] == []


@pytest.mark.parametrize(
    "what", ["engines", "tools", "scenarios", "quantizations", "models", "metrics", "keys"]
)
def test_in_a_pipe_each_row_is_one_line_and_json_has_all_of_them(what: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    lines = told(place, "list", what).stdout.splitlines()
    facts = json.loads(told(place, "list", what, "--json").stdout)
    assert [line for line in lines if line != line.rstrip()] == []
    column = what.removesuffix("s")
    firsts = [line.split(maxsplit=1)[0] for line in lines if line.strip() and not line.startswith(" ")]
    assert [each[column] for each in facts if each[column] not in firsts] == []
    if what in ("keys", "tools"):
        assert firsts == [column, *(each[column] for each in facts)], "a row takes more than a line"
    if what == "keys":
        ends = [
            (each["takes"] in line, line.endswith(each["help"]))
            for line, each in zip(lines[1:], facts, strict=True)
        ]
        assert {*ends} == {(True, True)}


def test_tools_are_listed_with_what_installs_them(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TOOLS", {"sharpener": _spec("tool-sharpener-cpu")})
    assert {name: here.state for name, here in tools_here(cache).items()} == {"sharpener": "not installed"}
    assert "not installed: `bench install sharpener` (2.0 MiB)" in listed("tools")


def test_a_tool_is_found_by_its_name_with_and_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = _spec("sharpener-cpu"), _spec("sharpener-cuda")
    monkeypatch.setattr(engines, "TOOLS", {"sharpener-cpu": cpu, "sharpener-cuda": cuda})
    assert spec_of("sharpener", None, has_device=False) == cpu
    assert spec_of("sharpener", None, has_device=True) == cuda
    assert spec_of("sharpener-cpu", None, has_device=True) == cpu
    choices = (
        r"no such engine or tool; choose from llama_cpp, .*, sharpener-cpu, .*; not .*sglang .*here: `bench"
    )
    with pytest.raises(UserError, match=choices):
        spec_of("hone", None, has_device=False)
    with pytest.raises(UserError, match="sharpener is one program"):
        spec_of("sharpener", "second", has_device=False)


def test_the_version_of_an_engine_is_that_of_the_distribution_with_its_name() -> None:
    versions = {"torch": "2.13.0", "Toy_Engine": "3", "toy-second": "4", "pip": "1"}
    assert version_of("toy.engine", "other", versions) == "3"
    assert version_of("toy", "toy_second", versions) == "4"
    assert version_of("toy", "other", versions) == "3"
    assert version_of("cart", None, versions) is None


def test_the_matrix_has_a_reason_for_each_gap_below_it(toy: Toy, cache: Path) -> None:
    [bf16] = [row for row in facts_of("quantizations") if row.quantization == "bf16"]
    assert str(bf16.engines["toy"]) == "toys read no bf16"
    assert str(bf16.engines["vllm"]) == "yes"
    assert "reference" not in bf16.engines
    text = listed("quantizations")
    header, *rows = text.splitlines()
    assert header.split()[:3] == ["quantization", "bits", "format"]
    line = next(row for row in rows if row.startswith("fp8"))
    number = line.rpartition("no ")[2].strip()
    told = [" ".join(row.split()) for row in rows]
    reasons = [row for row in told if row.startswith(f"{number} toys read no bf16, fp8, gptq, ")]
    served = next(row for row in rows if row.startswith("gptq"))
    number = served.partition("yes ")[2].split()[0]
    lacking = "served, but smollm2-135m is not published as fp8 or gptq, and bench cannot make it"
    assert f"{number} {lacking}" in told
    [gptq] = [row for row in facts_of("quantizations") if row.quantization == "gptq"]
    assert str(gptq.engines["vllm"]) == lacking.replace("fp8 or ", "")
    assert "yes  " in next(row for row in rows if row.startswith("awq"))
    assert len(reasons) == 1
    assert "its rows of 576 weights are not whole blocks of 256: llama-quantize" in " ".join(told)
    assert all(name in text for name in (" or ", "`bench plan` says what this machine can"))
    assert max(map(len, text.splitlines())) <= 100


def test_no_name_in_the_matrix_is_broken_at_80_columns() -> None:
    head, *rows = printed(80, list_command, "quantizations").splitlines()
    assert head.split() == [
        "quantization", "bits", "format", "llama_cpp", "ollama", "sglang", "tgi", "transformers", "vllm",
    ]  # fmt: skip
    assert sum(" safetensors " in row for row in rows[:13]) == 4
    assert all(row.strip() for row in rows[:13])
    assert max(map(len, [head, *rows[:13]])) <= 80


def test_a_pipe_that_its_reader_closed_ends_bench_as_sigpipe_would(tmp_path: Path) -> None:
    place, (reads, writes) = Place(tmp_path), os.pipe()
    os.close(reads)
    words = [BENCH, "list", "keys"]
    environment = place.environment()
    done = subprocess.run(words, cwd=tmp_path, env=environment, stdout=writes, stderr=PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("repeats", "count"), [(2, 1), (STARTS_NEEDED, 0)])
def test_a_plan_of_few_repeats_says_that_there_will_be_no_verdict(repeats: int, count: int) -> None:
    text = planned_text("engine=reference", "reference.itl=1ms,2ms", f"repeats={repeats}")
    assert text.count(f"repeats={repeats}: no verdict, which needs repeats=3 or more") == count


@pytest.mark.parametrize("repeats", [1, STARTS_NEEDED])
def test_a_plan_on_one_running_server_never_asks_for_repeats_that_bring_no_verdict(repeats: int) -> None:
    attached = ("engine=openai", "engine.base_url=http://h/v1", f"repeats={repeats}")
    text = planned_text(*attached, "model=m,n")
    assert "which needs repeats" not in text
    assert (
        text.count("engine.base_url: no verdict however many repeats, since the server is not restarted\n")
        == 1
    )
    assert "order: every repeat loads each deployment once, balanced" in text
    assert "no verdict" not in planned_text(*attached, "model=m")
