"""Choices become typed settings, or one line that says what would work."""

from pathlib import Path

import pytest
from toy_engine import Toy

from serving_bench.harness.contracts import Repeats
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.config import Settings


def settings(*lines: str) -> Settings:
    return config.settings(overrides.parse(list(lines)))


def test_defaults_are_the_main_job() -> None:
    made = settings()
    assert list(made.engines) == ["llama_cpp"]
    assert made.quantizations == ("fp16", "gguf-q8_0", "gguf-q4_0")
    assert [load.concurrency for load in made.loads] == [4]
    assert made.repeats == Repeats(3, 12)
    assert made.given == {}


def test_units_are_read_into_fields_that_carry_them() -> None:
    made = settings(
        "load.duration=500ms", "load.warmup=1m", "engine.start_timeout=90s", "scenario.think_time=50ms"
    )
    assert made.loads[0].duration_s == 0.5
    assert made.loads[0].warmup_s == 60
    assert made.terms[0].value.start_timeout_s == 90
    assert made.scenarios[0].options.think_time_s == pytest.approx(0.05)


def test_a_whole_number_may_have_an_exponent() -> None:
    assert settings("repeats=1e1", "load.concurrency=2e0,4").repeats == Repeats(10, 10)


def test_sweeping_several_keys_gives_their_product() -> None:
    made = settings("load.concurrency=1,2", "load.duration=1s,2s", "scenario.turns=1,3")
    assert [(load.concurrency, load.duration_s) for load in made.loads] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [scenario.label for scenario in made.scenarios] == [
        "chat_multi_turn turns=1",
        "chat_multi_turn turns=3",
    ]


def test_speculation_may_be_off_as_yaml_reads_it() -> None:
    made = config.settings({"engine.speculation": (False, "ngram")})
    assert [point.value.speculation for point in made.terms] == ["off", "ngram"]


def test_gguf_is_resolved() -> None:
    assert settings("quantization=gguf").quantizations == ("gguf-q4_1",)
    assert settings("model=qwen3-8b", "quantization=gguf").quantizations == ("gguf-q4_k_m",)


@pytest.mark.parametrize("load", ["load.concurrency=1,2", "load.rate=2.5/s,120/min"])
def test_given_settings_parse_again_to_the_same(load: str) -> None:
    lines = [load, "load.duration=1s", "load.max_failed=10%", "engine=reference", "reference.label=a,b"]
    made = settings(*lines)
    assert settings(*(f"{key}={','.join(values)}" for key, values in made.given.items())) == made


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["slo.ttft_s.p99.9=1s"], "slo.ttft_s.p99.9=1s: no such key; did you mean slo.ttft_s.p99? "),
        (["slo.ttft_s.p100=1s"], "slo.ttft_s.p100=1s: no such key; did you mean slo.ttft_s.p"),
        (["engine=reference", "reference.tpot=5ms"],
         "reference.tpot=5ms: no such key; reference has fault, itl, label, "),
        (["engine.foo=1"], "engine.foo=1: no such key; engine has api_key_env, base_url, "),
        (["vllm.context_length=1"],
         "vllm.context_length=1: no such key; did you mean engine.context_length? "),
        (["llama_cpp.temperature=1"], "llama_cpp.temperature=1: no such key; llama_cpp has args, batch, "),
        (["load.repeats=1"], "load.repeats=1: no such key; did you mean repeats? "),
        (["engin=vllm"], "engin=vllm: no such key; did you mean engine? "),
        (["load.concurency=3"], "load.concurency=3: no such key; did you mean load.concurrency? "),
        (["engine.speculation=eagle"],
         "engine.speculation=eagle: choose from off, ngram, draft:MODEL, draft"),
        (["engine.speculation=draft:"], "engine.speculation=draft:: choose from off, ngram, draft:MODEL, dr"),
        (["engine.speculation=draft:smollm2-135m@q4_0"],
         "engine.speculation=draft:smollm2-135m@q4_0: no such quantization; did you mean gguf-q4_0? "),
        (["engine.speculative_tokens=4"],
         "engine.speculative_tokens=4: says how many engine.speculation=ngram or draft:MODEL proposes"),
        (["engine.kv_cache_type=q3"], "engine.kv_cache_type=q3: choose from fp32, fp16, bf16, fp8, "),
        (["engine=vlm"],
         "engine=vlm: no such engine; did you mean vllm? choose from anthropic, gemini, llama_cpp, ollama"),
        (["scenario=chat"],
         "scenario=chat: no such scenario; did you mean chat_multi_turn? see `bench list scenarios`"),
        (["quantization=gguf-q4km"],
         "no such quantization; did you mean gguf-q4_k_m or gguf-q5_k_m or gguf-q4_k_s? see `bench list"),
        (["quantization=q4_0"], "no such quantization; did you mean gguf-q4_0? "),
        (["until=ci:5"], "until=ci:5: a share above 1 needs its percent sign; write 5%"),
        (["slo.success=95"], "slo.success=95: a share above 1 needs its percent sign; write 95%"),
        (["quantization=int3"], "quantization=int3: no such quantization; see `bench list quantizations`"),
        (["load.concurrency=many"], "load.concurrency=many: must be a whole number"),
        (["load.concurrency=0"], "load.concurrency=0: must be 1 or more"),
        (["load.concurrency=1.5"], "load.concurrency=1.5: must be a whole number"),
        (["load.duration=20x"], "load.duration=20x: must be a duration such as 20s"),
        (["load.duration=5"], "load.duration=5: needs a unit; write 5s, or 5ms for milliseconds"),
        (["load.warmup=1.5"], "load.warmup=1.5: needs a unit; write 1.5s"),
        (["slo.ttft_s.p95=500"], "slo.ttft_s.p95=500: needs a unit; write 500s, or 500ms"),
        (["until=ci:5%", "until.budget=7200"], "until.budget=7200: needs a unit; write 7200s"),
        (["run.budget=480"], "run.budget=480: needs a unit; write 480s"),
        (["engine=reference", "reference.ttft=5"], "reference.ttft=5: needs a unit; write 5s"),
        (["slo.ttft_s.p95=0"], "slo.ttft_s.p95=0: must be more than 0"),
        (["load.duration=0"], "load.duration=0: must be 0.1 s or more"),
        (["load.warmup=-1s"], "load.warmup=-1s: must be 0 s or more"),
        (["load.concurrency=2", "load.rate=3"], "closed and open loop exclude each other"),
        (["load.rate=3x"], "load.rate=3x: must be a rate such as 2.5/s or 120/min"),
        (["load.rate=0"], "load.rate=0: must be 0.001/s or more"),
        (["load.max_failed=10x"], "load.max_failed=10x: must be a share such as 5% or 0.05"),
        (["load.max_failed=120%"], "load.max_failed=120%: must be 100% or less"),
        (["repeats=1,2"], "repeats=1,2: cannot be swept"),
        (["repeats=1e9"], "repeats=1000000000: must be from 1 to 1000"),
        (["engine.seed=x"], "engine.seed=x: must be a whole number or null (not given)"),
        (["repeats=2.5"], "repeats=2.5: give LEAST..MOST, such as 3..12, or one number for all"),
        (["repeats=1.."], "repeats=1..: give LEAST..MOST, such as 3..12, or one number for all"),
        (["repeats=5..3"], "repeats=5..3: the most must be above the least"),
        (["repeats=3..3"], "repeats=3..3: the most must be above the least"),
        (["repeats=2..5"], "repeats=2..5: a race needs 3 repeats at least"),
        (["repeats=3..12", "until=ci:5%"], "repeats=3..12: until decides itself how many there are; give "),
        (["race.keep=x", "repeats=5"], "race.keep=x: repeats=5 is no race; give race.keep=null or "),
        (["race.keep=x", "until=ci:5%"], "race.keep=x: until decides itself how many there are; leave it "),
        (["device=0,1"], "'device=\"0,1\"'"),
        (["scenario.history=none"], "scenario.history=none: choose from model, scripted"),
        (["scenario.turns=0"], "scenario.turns=0: must be 1 or more"),
        (["scenario.path=x"], "scenario.path=x: scenario chat_multi_turn has no such option"),
        (["scenario=file"], "scenario=file needs scenario.path=FILE"),
        (["scenario=file", "scenario.path=/nowhere"], "scenario.path=/nowhere: cannot be read"),
        (["reference.slots=2"], "reference.slots=2: engine reference is not in this run"),
        (["engine=reference", "reference.slots=0"], "reference.slots=0: must be 1 or more"),
        (["load.timeout=null"], "load.timeout=null: needs a value"),
        (["engine=openai", "engine.base_url=http://h/v1"], "give model=NAME"),
        (["engine=openai,reference", "engine.base_url=http://h/v1", "model=m"],
         "engine=openai,reference: a running server (http://h/v1) is one engine"),
        (["engine=openai", "engine.base_url=http://h/v1", "model=m", "quantization=fp16,awq"],
         "quantization=fp16,awq: a running server (http://h/v1) is one quantization"),
        (["quantization=exl3-4.0bpw"],
         "quantization=exl3-4.0bpw: no engine that bench starts serves it; engine=openai"),
        (["engine=openai", "engine.base_url=http://h/v1", "model=m", "quantization=exl3"],
         "quantization=exl3: no such quantization; see `bench list quantizations`"),
        (["engine=openai", "engine.base_url=http://a/v1,http://b/v1", "model=m"], "cannot be swept"),
        (["engine.launcher=podman"], "engine.launcher=podman: choose from native, docker"),
        (["engine.dtype=int8"], "engine.dtype=int8: choose from float16, bfloat16, float32"),
        (["engine.fairness=even"], "engine.fairness=even: choose from matched, stock, tuned"),
        (["fairness=stock", "engine.fairness=tuned"], "fairness and engine.fairness are one key"),
        (["engine.chat_template=/nowhere.jinja"], "engine.chat_template=/nowhere.jinja: no such file"),
        (["engine.chat_template=/"], "engine.chat_template=/: no such file"),
        (["engine.memory_limit=8"], "engine.memory_limit=8: 8 bytes? write 8GiB or 8MiB"),
        (["engine.memory_limit=many"],
         "engine.memory_limit=many: must be a size such as 24GiB, 24GB or 512MiB"),
        (["engine.tensor_parallel=0"], "engine.tensor_parallel=0: must be 1 or more"),
        (["engine.prefix_cache=maybe"], "engine.prefix_cache=maybe: must be true or false"),
        (["engine=reference", "reference.program=/opt/server"], "choose from python, native"),
        (["engine=reference", "reference.program=native", "reference.fault=reset@3"],
         "reference.fault=reset@3: the native program lacks it; reference.program=python has it"),
        (["engine=reference", "reference.environment=/opt"], "reference.environment=/opt: no such key"),
        (["engine=openai", "engine.base_url=http://h/v1", "model=m", "engine.launcher=docker"],
         "engine.launcher=docker: a running server (http://h/v1) is not started"),
        (["engine=vllm", "engine.base_url=http://h/v1", "model=m", 'vllm.args="--x"'],
         "vllm.args: a running server (http://h/v1) is not started; give one of them"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_key_and_value(lines: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(*lines)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("load.concurrency=1000000000", "load.concurrency=1000000000: must be 100000 or less"),
        ("engine.base_url=ftp://h/v1", "engine.base_url=ftp://h/v1: must be of the form http://HOST:PORT/v1"),
        ("engine.base_url=http://me:hunter2@h/v1", "engine.base_url: has a user or password in it"),
        ("vllm.args='--api-key 1234'", "vllm.args: has a secret in it, which would be stored with the run"),
        ("vllm.args='--a \"b'", 'vllm.args=--a "b: No closing quotation'),
        ("engine.base_url=ftp://me:hunter2@h/v1", "engine.base_url: has a user or password in it"),
        ("engine.base_url=http://h:99999/v1", "must be of the form http://HOST:PORT/v1"),
    ],
)
def test_what_no_machine_can_do_is_refused(line: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")) as refused:
        settings(line, "model=m")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("load.concurrency=1,4,1", "load.concurrency=1,4,1: 1 is given twice; give it once"),
        ("engine=vllm,vllm", "engine=vllm,vllm: vllm is given twice; give it once"),
        ("model=a,a", "model=a,a: a is given twice; give it once"),
        ("engine.context_length=64,64", "engine.context_length=64,64: 64 is given twice; give it once"),
        (
            "quantization=gguf,gguf-q4_1",
            "quantization=gguf,gguf-q4_1: gguf and gguf-q4_1 are the same; give it once",
        ),
        ("load.rate=2,120/min", "load.rate=2,120/min: 2 and 120/min are the same; give it once"),
        ("compare.metric=ttft_s.p50,ttft_s.p50", "ttft_s.p50 is given twice; give it once"),
    ],
)
def test_a_value_given_twice_is_refused(line: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(line)
    assert str(caught.value).endswith(said)


def test_a_program_that_an_engine_does_not_have_is_refused_with_those_it_has(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"toy\.program=third: .*first, second or give a path"):
        settings("engine=toy", "toy.program=third")


def test_programs_and_environments_are_kept_as_paths_that_mean_the_same_anywhere(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = settings("engine=toy", "toy.program=second,./server", "toy.environment=env")
    assert made.given["toy.program"] == ("second", str(tmp_path / "server"))
    assert made.given["toy.environment"] == (str(tmp_path / "env"),)
    assert settings(*(f"{key}={','.join(values)}" for key, values in made.given.items())) == made


def test_fairness_is_short_for_its_whole_key() -> None:
    made = settings("fairness=stock,matched")
    assert [point.value.fairness for point in made.terms] == ["stock", "matched"]
    assert made.given == {"engine.fairness": ("stock", "matched")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fairness=even", "engine.fairness=even: choose from matched, stock, tuned"),
        ("fairness=null", "engine.fairness=null: needs a value"),
        ("zzz=1", "zzz=1: no such key; `bench list keys` has all"),
        (
            "load.concurency=1",
            "load.concurency=1: no such key; did you mean load.concurrency? `bench list keys` has all",
        ),
    ],
)
def test_a_mistake_is_told_shortly(line: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(line)
    assert str(caught.value) == said


def test_null_leaves_a_term_to_the_engine() -> None:
    [point] = settings("engine.dtype=null", "engine.launcher=null").terms
    assert (point.value.dtype, point.value.launcher) == (None, None)


def test_a_path_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chats.jsonl").write_text('{"prompt": "x"}\n')
    monkeypatch.chdir(tmp_path)
    made = settings("scenario=file", "scenario.path=chats.jsonl")
    assert made.given["scenario.path"] == (str(tmp_path / "chats.jsonl"),)


def test_the_file_whose_column_gives_lengths_is_kept_absolute(tmp_path, monkeypatch):
    (tmp_path / "azure.csv").write_text("in,out tokens\n7,8\n")
    monkeypatch.chdir(tmp_path)
    made = settings("scenario=fixed", "scenario.input_tokens=azure.csv:in,lognormal:9:0.1,5")
    assert made.given["scenario.input_tokens"] == (f"{tmp_path}/azure.csv:in", "lognormal:9:0.1", "5")
    monkeypatch.chdir("/")
    again = config.settings({key: tuple(values) for key, values in made.given.items()})
    assert again.scenarios == made.scenarios


def test_a_search_keeps_a_short_key_that_was_given_for_its_resume() -> None:
    made = config.search_settings(overrides.parse(["fairness=stock", "slo.success=99%"]))
    assert made.given["engine.fairness"] == ("stock",)
    assert "load.concurrency" not in made.given


def test_adapters_that_are_directories_are_kept_absolute_and_names_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "sql").mkdir()
    monkeypatch.chdir(tmp_path)
    kept = {"sql:chat": f"{tmp_path}/sql/:chat", "2": "2"}
    for given, absolute in kept.items():
        words = ["scenario=lora_mix", f"scenario.adapters={given}"]
        assert config.settings(overrides.parse(words)).given["scenario.adapters"] == (absolute,)
    attached = ["engine=openai", "engine.base_url=http://127.0.0.1:8000/v1", "model=m"]
    words = [*attached, "scenario=lora_mix", "scenario.adapters=sql:org/chat"]
    assert config.settings(overrides.parse(words)).given["scenario.adapters"] == ("sql:org/chat",)


def test_an_adapter_of_no_name_is_not_the_current_directory() -> None:
    with pytest.raises(UserError, match=r"scenario\.adapters=a::b: must be a number, or directories"):
        config.settings(overrides.parse(["scenario=lora_mix", "scenario.adapters=a::b"]))


@pytest.mark.parametrize("key", ["scenario.adapters", "scenario.path", "load.tokenizer"])
def test_a_home_directory_that_there_is_none_of_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}=~nouser/a: no such home directory; give the path"):
        config.settings(overrides.parse(["scenario=lora_mix,file", f'{key}="~nouser/a"']))
