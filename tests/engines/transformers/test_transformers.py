"""The transformers engine's own facts: arguments, reasons, and reading of what its server says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from places import TESTS

from serving_bench.engines.transformers.engine import ENGINE, SERVER, Options
from serving_bench.harness.contracts import Deployment, EngineTerms, NativeSpec, Place, Turn
from serving_bench.harness.load.answer.chat import classify, decode

DATA = TESTS / "data" / "transformers"
PLACE = Place(Path("/env/bin/python"), Path("/w/m-bf16"), "127.0.0.1", 8123, Path("/scratch"))
# As transformers 5.24.0 with torch 2.13.0+cpu wrote it for gemma3-270m.
LOG = """\
transformers 5.24.0, torch 2.13.0+cpu
loading weights
Loading weights: 100%|##########| 236/236 [00:00<00:00, 48737.36it/s]
weights loaded: 268098176 parameters as bfloat16 on cpu, 7.6 s
weights take 536198400 bytes
ready to listen on 127.0.0.1:8123
"""


def deployment(
    quantization: str = "bf16",
    terms: EngineTerms | None = None,
    options: Options | None = None,
    model: str = "llama-8b",
) -> Deployment:
    return Deployment(
        "transformers", model, quantization, terms or EngineTerms(), options or Options(), "label"
    )


def launched(*given: Any, place: Place = PLACE, **terms_and_options: Any) -> NativeSpec:
    spec = ENGINE.launch(deployment(*given, **terms_and_options), place)
    assert isinstance(spec, NativeSpec)
    return spec


def test_plain_deployment_has_the_shortest_command_line() -> None:
    spec = launched()
    assert spec.argv == (
        "/env/bin/python", "-P", str(SERVER),
        "--model=/w/m-bf16", "--alias=llama-8b", "--host=127.0.0.1", "--port=8123",
        "--device=cpu", "--dtype=bfloat16", "--attention=sdpa",
    )  # fmt: skip
    assert (spec.base_url, spec.ready_path) == ("http://127.0.0.1:8123/v1", "/health")
    assert spec.served_model == "llama-8b"
    assert spec.environment["HF_HUB_OFFLINE"] == "1"
    assert SERVER.is_file()


def test_terms_and_options_become_flags() -> None:
    terms = EngineTerms(
        context_length=2048, seed=5, speculative_tokens=3, chat_template="t.jinja", concurrent_sequences=4
    )
    spec = launched("fp16", terms, Options(threads=2, attention="eager"))
    assert spec.argv[8:] == (
        "--dtype=float16", "--attention=eager", "--context-length=2048", "--chat-template=t.jinja",
        "--threads=2", "--seed=5", "--speculative-tokens=3",
    )  # fmt: skip


def test_the_places_device_and_template_are_used() -> None:
    place = Place(
        PLACE.python, PLACE.weights, "127.0.0.1", 1, Path(), devices=(0,), chat_template=Path("/t/m.jinja")
    )
    assert {"--device=cuda", "--chat-template=/t/m.jinja"} < set(launched(place=place).argv)
    own = launched(terms=EngineTerms(chat_template="mine.jinja"), place=place)
    assert "--chat-template=mine.jinja" in own.argv


def test_requests_force_the_output_length() -> None:
    assert ENGINE.request_fields(Turn((), max_tokens=8), Options(), "matched") == {"ignore_eos": True}
    assert ENGINE.forces_length(deployment("bf16"))


def test_terms_that_a_baseline_cannot_meet_are_named_only_where_asked_for() -> None:
    asked = EngineTerms(
        concurrent_sequences=4,
        kv_cache_tokens=8192,
        prefix_cache=True,
        chunked_prefill=True,
        tensor_parallel=2,
        graphs=True,
        seed=1,
        speculative_tokens=2,
    )
    clauses = ENGINE.unmatched(deployment(terms=asked))
    assert set(clauses) == {
        "concurrent_sequences",
        "kv_cache_tokens",
        "prefix_cache",
        "chunked_prefill",
        "tensor_parallel",
        "graphs",
    }
    assert "one answer at a time" in str(clauses["concurrent_sequences"])
    met = EngineTerms(concurrent_sequences=1, prefix_cache=False, chunked_prefill=False, graphs=False)
    assert ENGINE.unmatched(deployment(terms=met)) == {}


LOCKS = Path(ENGINE.install(None, "cpu").lock).parent


def pins(name: str) -> dict[str, str]:
    """Package==version -> its hashes, of a lock."""
    lock = (LOCKS / name).read_text()
    assert "://" not in lock
    found = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    return {pin.split()[0]: pin for pin in found}


def test_pytorch_is_added_to_a_cpu_environment_from_either_lock() -> None:
    """Where pip finds no CPU build, the script takes PyPI's from the other lock: all else is equal."""
    assert not [pin for pin in pins("transformers-cpu.txt") if pin.startswith("torch==")]
    assert set(pins("transformers-cpu-torch.txt")) == {"torch==2.13.0+cpu"}
    assert set(pins("transformers-cpu.txt")) < set(pins("transformers-cuda.txt"))
    assert {"torch==2.13.0", "nvidia-cublas==13.1.1.3"} < set(pins("transformers-cuda.txt"))


def test_resolved_values_are_what_the_server_said() -> None:
    info = json.loads((DATA / "info.json").read_text())
    assert ENGINE.said(LOG, {"/info": info}).terms == {
        "engine_version": "5.24.0", "torch_version": "2.13.0+cpu", "context_length": 2048,
        "concurrent_sequences": 1, "dtype": "bfloat16", "weights_type": "bfloat16", "kv_cache_type": "bf16",
        "attention_backend": "sdpa", "threads": 1, "seed": 1, "chat_template": "gemma3.jinja",
        "prefix_cache": False, "chunked_prefill": False, "graphs": False,
    }  # fmt: skip
    assert ENGINE.said(LOG, {}).terms == {}


def test_stages_are_found_in_the_log() -> None:
    found = [
        [stage.name for stage in ENGINE.stages if re.search(stage.pattern, line)] for line in LOG.splitlines()
    ]
    assert found == [[], ["weights_begin"], [], ["weights_loaded"], [], ["engine_ready"]]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("the model computes NaN as float16; another dtype may work", "quantization=bf16"),
        ("--context-length 40000: the model's context has 32768 tokens", "engine.context_length"),
        ("/w/m has no chat template; --chat-template FILE gives one", "engine.chat_template"),
        ("--device cuda: this torch finds no CUDA device", "device=cpu"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "engine.context_length"),
    ],
)
def test_failures_have_a_remedy(line: str, named: str) -> None:
    remedies = [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, line)]
    assert len(remedies) == 1
    assert named in remedies[0]


def test_a_recorded_answer_of_the_server_is_read_whole() -> None:
    """12 tokens of gemma3-270m at bf16, from transformers 5.24.0."""
    body = (DATA / "chat.sse").read_bytes()
    decoded = decode(body, [7], [len(body)])
    assert classify(200, body, decoded, "text/event-stream; charset=utf-8") == ("ok", None)
    assert (decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens) == (18, 12, None)
    assert decoded.finish_reason == "length"
    assert decoded.text == (DATA / "chat.txt").read_text()
    assert decoded.saw_done
