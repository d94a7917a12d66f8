"""Which settings bench takes from a file that somebody else may have made."""

import typing
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Foreign
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings import keys
from serving_bench.harness.settings.strangers import _TAKES, belief, field_of, words

FIELDS = keys.fields()
OF_TEXT = [(key, field) for key, every in FIELDS.items() for field in every if str in field.parts]
# Keys of a run that take text. `bench gate` reads no file.
TEXTS = list(dict.fromkeys(key for key, _ in OF_TEXT if not key.startswith("gate.")))
# What a stranger could want: something that runs, is read, or is sent to.
HARMFUL = ["/tmp/evil", "./evil", "../evil.sh", "~/.ssh/id_rsa", "http://evil.example/v1", "--flag=1",
           "$(id)", "evil;id", "FILE.csv:column", "/etc/passwd:1", "draft:/evil", "evil.yaml"]  # fmt: skip
LENGTHS = [key for key in TEXTS if field_of(key).key.foreign == "length"]
LABELS = [key for key in TEXTS if field_of(key).key.foreign == "label"]
# Settings look these up in a table of bench's own, or read a number.
LOOKED_UP = {"engine", "quantization", "scenario", "until.metric", "compare.metric", "repeats"}
JUDGED = [key for key in TEXTS if key not in LOOKED_UP]


@pytest.mark.parametrize(("key", "field"), OF_TEXT)
def test_every_key_that_takes_text_says_what_a_stranger_may_give_it(key, field):
    assert field.key.foreign is not None


def test_what_does_not_say_it_is_asked_for(monkeypatch):
    @dataclass(frozen=True)
    class Options:
        script: str | None = None

    monkeypatch.setitem(ENGINES, "newest", replace(ENGINES["openai"], name="newest", options=Options))
    assert belief("newest.script", "word") == "asked"


def test_all_that_a_stranger_may_give_is_decided():
    assert _TAKES.keys() == {*typing.get_args(Foreign)}


@pytest.mark.parametrize("key", FIELDS)
def test_all_scenarios_take_a_key_from_a_stranger_alike(key):
    assert len({(field.key.foreign, field.key.ask_above) for field in FIELDS[key]}) == 1


def test_only_what_settings_look_up_or_read_as_a_number_is_taken_whatever_it_says():
    taken = {key for key, every in FIELDS.items() if every[0].key.foreign == "looked up"}
    assert {key for key in taken if not key.startswith("slo.")} == LOOKED_UP | {"until", "gate.metric"}


def said_of(key, value):
    try:
        return belief(key, value)
    except UserError:
        return "refused"


MANY = {"_s": "11h", "_per_s": "9999/s", None: 20_000}
COSTS = {
    key: MANY[field.suffix]
    for key, every in FIELDS.items()
    for field in every
    if key.startswith(("load.", "scenario.")) and (field.suffix in ("_s", "_per_s") or int in field.parts)
}


@pytest.mark.parametrize("key", sorted(COSTS.keys() - {"load.ramp_steps"}))
def test_no_large_number_of_a_load_or_a_scenario_is_taken_silently(key):
    assert said_of(key, COSTS[key]) != "taken"


@pytest.mark.parametrize("key", JUDGED)
def test_nothing_that_runs_is_read_or_is_sent_to_is_taken_from_a_file(key):
    taken = {value for value in HARMFUL if said_of(key, value) == "taken"}
    if key in LENGTHS:
        assert not taken
    elif key in LABELS:  # a label may have any character but a slash
        assert not {value for value in taken if "/" in value}
    elif key == "quality.tasks":
        assert taken == {"FILE.csv:column"}  # a name that no task has
    else:  # an engine looks a word up among its own
        assert taken in (set(), {"FILE.csv:column", "evil.yaml"})


@given(st.sampled_from([key for key in JUDGED if key not in LENGTHS]), st.text(max_size=80))
def test_no_text_that_is_taken_from_a_file_is_a_path_or_a_flag(key, value):
    if belief(key, value) == "taken":
        assert "/" not in value
        assert not value.startswith("-") or key in LABELS


CASES = [
    ("engine.base_url", "http://127.0.0.1:1/v1", "asked"),
    ("engine.api_key_env", "AWS_SECRET_ACCESS_KEY", "asked"),
    ("engine.launcher", "docker", "asked"),
    ("engine.trust_remote_code", True, "asked"),
    ("engine.trust_remote_code", False, "taken"),
    ("engine.chat_template", None, "taken"),
    ("llama_cpp.program", "llama-server", "taken"),
    ("llama_cpp.program", "sh", "asked"),
    ("ollama.program", "ollama", "taken"),
    ("tgi.program", "/usr/bin/id", "asked"),
    ("vllm.image", "vllm/vllm-openai:v1", "asked"),
    ("transformers.environment", "/tmp/venv", "asked"),
    ("model", "smollm2-135m", "taken"),
    ("model", "hf:org/name", "shown"),
    ("model", "/models/x", "asked"),
    ("model", "x", "asked"),
    ("engine.speculation", "ngram", "taken"),
    ("engine.speculation", False, "taken"),
    ("engine.speculation", "draft:smollm2-135m@gguf-q4_0", "taken"),
    ("engine.speculation", "draft:hf:org/name", "asked"),
    ("scenario.adapters", 4, "taken"),
    ("scenario.adapters", "4", "taken"),
    ("scenario.adapters", "/a:/b", "asked"),
    ("scenario.input_tokens", "lognormal:512:0.5", "taken"),
    ("scenario.input_tokens", "lognormal:8192:5", "asked"),
    ("scenario.input_tokens", "lognormal:1e0007:0", "asked"),
    ("scenario.input_tokens", "1_000_000", "asked"),
    ("scenario.output_tokens", "/home/me/private.csv:x", "asked"),
    ("scenario.output_tokens", "t.csv:x", "asked"),
    ("scenario.input_tokens", "trace.csv:tokens", "asked"),
    ("scenario.input_tokens", 8192, "taken"),
    ("scenario.input_tokens", "256..8193", "asked"),
    ("scenario.most_tokens", 10_000_000, "asked"),
    ("scenario.documents", 10_000, "asked"),
    ("scenario.rate", "300/s", "asked"),
    ("scenario.quiet", "2h", "asked"),
    ("search.highest", 100_000, "asked"),
    ("search.trials", 21, "asked"),
    ("until.budget", "1000h", "asked"),
    ("until.budget", "30min", "taken"),
    ("quality.budget", "2h", "asked"),
    ("guard.wait", "20min", "taken"),
    ("engine.start_timeout", "10min", "taken"),
    ("price.currency", "€", "taken"),
    ("scenario.system_words", 10**9, "asked"),
    ("scenario.turns", 33, "asked"),
    ("scenario.steps", "5..32", "shown"),
    ("scenario.path", "trace.jsonl", "asked"),
    ("quality.against", "llama_cpp fp16", "taken"),
    ("quality.against", "/results/x", "asked"),
    ("quality.against", ".", "asked"),
    ("quality.against", "x" * 5000, "asked"),
    ("quality.against", "a\0b", "asked"),
    ("quality.tasks", "gsm8k", "taken"),
    ("quality.tasks", "evil.yaml", "asked"),
    ("quality.tasks", "a/b", "asked"),
    ("vllm.attention_backend", "FLASH_ATTN", "taken"),
    ("vllm.threads_bind", "0-1|2-3", "taken"),
    ("vllm.attention_backend", "--trust-remote-code", "asked"),
    ("vllm.tool_call_parser", "a" * 65, "asked"),
    ("vllm.quantization", "awq\n", "asked"),
    ("device", "cpu", "taken"),
    ("device", "0,1", "asked"),
    ("seed", 3, "taken"),
    ("load.concurrency", 8, "shown"),
    ("load.concurrency", 257, "asked"),
    ("load.workers", 17, "asked"),
    ("load.duration", "10m", "shown"),
    ("load.duration", "11m", "asked"),
    ("load.rate", "300/s", "asked"),
    ("load.rate", "90/min", "shown"),
    ("load.conversations", 10_001, "asked"),
    ("load.warmup", "1h", "asked"),
    ("load.steps", 1000, "asked"),
    ("compare.baseline", "llama_cpp fp16", "taken"),
    ("compare.baseline", "/etc/passwd", "asked"),
    ("price.currency", "USD", "taken"),
    ("price.currency", "<b>", "asked"),
    ("reference.memory", "2GiB", "asked"),
    ("repeats", 21, "asked"),
    ("run.budget", "auto", "taken"),
    ("run.budget", "2h", "asked"),
    ("quality.limit", "off", "taken"),
    ("quality.limit", False, "taken"),
    ("guard", "off", "taken"),
    ("fairness", "stock", "taken"),
    ("until", "ci:5%", "taken"),
    ("slo.ttft_s.p95", "2h", "taken"),
    ("reference.memory", 0, "shown"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "expected"), CASES)
def test_a_value_from_a_file_is_taken_shown_or_asked_for(key, value, expected):
    assert belief(key, value) == expected


def test_a_cost_of_a_wrong_type_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^load.workers=many: must be a whole number"):
        belief("load.workers", "many")


@pytest.mark.parametrize(
    ("option", "kind"), [("image", "never"), ("environment", "file"), ("program", "program")]
)
def test_an_option_of_an_engine_is_judged_like_that_of_any_other(option, kind):
    every = [FIELDS.get(f"{name}.{option}", ()) for name in ENGINES]
    assert {field.key.foreign for fields in every for field in fields} == {kind}


def test_the_words_of_a_key_have_all_its_values_as_they_are_typed():
    found = {"model": ("smollm2-135m", "/a b"), "seed": (1,), "load.concurrency": (1, 8)}
    assert [*words(found, "asked")] == ['model=smollm2-135m,"/a b"']
    assert [*words(found, "shown")] == ["load.concurrency=1,8"]
