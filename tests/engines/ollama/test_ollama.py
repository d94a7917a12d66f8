"""The ollama engine's own facts: settings, reasons, and reading of log lines as its source writes them."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ollama_server import DATA, captured

from serving_bench.engines.common.launching import image_of
from serving_bench.engines.ollama.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    NativeSpec,
    Place,
    Reason,
    Turn,
)

WEIGHTS = Path("/w/my model-q4_0.gguf")
CPU = Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), cache=Path("/cache/compiled/ollama"))
GPU = Place(None, WEIGHTS, "127.0.0.1", 8123, Path("/scratch"), devices=(0,))
MATCHED = EngineTerms(
    launcher="native", context_length=2048, concurrent_sequences=8, kv_cache_tokens=16384, prefix_cache=True
)
# What Ollama 0.33.0-rc2 and its llama-server wrote.
LOG = (DATA / "serve.log").read_text()


def deployment(
    terms: EngineTerms = MATCHED, options: Options | None = None, model: str = "hf:org/my model"
) -> Deployment:
    return Deployment("ollama", model, "gguf-q4_0", terms, options or Options(), "label")


def native(terms: EngineTerms = MATCHED, options: Options | None = None, place: Place = CPU) -> NativeSpec:
    spec = ENGINE.launch(deployment(terms, options), place)
    assert isinstance(spec, NativeSpec)
    return spec


def test_a_process_gets_matched_terms_by_its_environment() -> None:
    spec = native()
    assert spec.environment == {
        "OLLAMA_HOST": "127.0.0.1:8123", "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NO_CLOUD": "1", "OLLAMA_GO_TEMPLATE": "0", "OLLAMA_NUM_PARALLEL": "8",
        "OLLAMA_CONTEXT_LENGTH": "2048", "CUDA_VISIBLE_DEVICES": "-1", "HOME": "/cache/compiled/ollama",
        "OLLAMA_MODELS": "/cache/compiled/ollama/models",
    }  # fmt: skip
    assert spec.argv[:2] == ("/bin/sh", "-c")
    name = spec.served_model
    assert re.fullmatch("my-model:gguf-q4_0-[0-9a-f]{8}", name)
    assert spec.argv[3:] == ("ollama", name, "FROM /w/my model-q4_0.gguf\n")
    assert (spec.base_url, spec.ready_path) == ("http://127.0.0.1:8123/v1", "/api/version")


def test_stock_terms_leave_everything_to_ollama() -> None:
    environment = native(EngineTerms(fairness="stock"), place=GPU).environment
    left = {"GO_TEMPLATE", "NUM_PARALLEL", "CONTEXT_LENGTH", "KV_CACHE_TYPE", "FLASH_ATTENTION"}
    assert not {f"OLLAMA_{name}" for name in left} & environment.keys()
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_a_quantized_kv_cache_gets_the_flash_attention_that_it_needs() -> None:
    environment = native(EngineTerms(kv_cache_type="q8_0", graphs=False)).environment
    assert environment["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert environment["OLLAMA_FLASH_ATTENTION"] == "1"
    assert environment["GGML_CUDA_DISABLE_GRAPHS"] == "1"
    plain = native(EngineTerms(kv_cache_type="fp16"), Options(flash_attention=False)).environment
    assert (plain["OLLAMA_KV_CACHE_TYPE"], plain["OLLAMA_FLASH_ATTENTION"]) == ("f16", "0")
    assert ENGINE.kv_cache_types is not None
    assert ENGINE.kv_cache_types(deployment()) == ["fp16", "q8_0", "q4_0"]
    assert ENGINE.kv_cache_types(deployment(options=Options(flash_attention=False))) == ["fp16"]


def test_no_name_stands_for_the_model_of_another_file(tmp_path: Path) -> None:
    """Ollama would answer from the model of an earlier start while it makes the one that is asked for."""
    first, second = (tmp_path / f"w-0000{part}-of-00002.gguf" for part in (1, 2))
    first.write_text("a")
    place, names = replace(CPU, weights=first), []
    for text in ("b", "c", "de"):
        second.write_text(text)
        os.utime(second, ns=(0, len(names)))
        names.append(native(place=place).served_model)
    assert len({*names}) == 3
    assert native(place=place).served_model == names[-1]
    digest = replace(place, weights_sha256="0123456789ab")
    assert native(place=digest).served_model.endswith(":gguf-q4_0-01234567")


def test_all_parts_of_a_split_file_make_the_model() -> None:
    place = Place(None, Path("/w/m-00001-of-00002.gguf"), "127.0.0.1", 1, Path("/scratch"))
    assert native(place=place).argv[-1] == "FROM /w/m-00001-of-00002.gguf\nFROM /w/m-00002-of-00002.gguf\n"


def test_a_program_of_the_users_own_is_run() -> None:
    place = Place(None, WEIGHTS, "127.0.0.1", 1, Path("/scratch"), program=Path("/opt/ollama"))
    assert native(options=Options(program="/opt/ollama"), place=place).argv[3] == "/opt/ollama"


def test_a_container_makes_the_model_in_the_same_way() -> None:
    terms = EngineTerms(launcher="docker", context_length=2048, memory_limit_bytes=1 << 30)
    spec = ENGINE.launch(deployment(terms), GPU)
    assert isinstance(spec, ContainerSpec)
    assert (spec.image, spec.entrypoint) == (image_of("ollama", "cuda"), "/bin/sh")
    assert spec.arguments == (
        *native().argv[1:3],
        "ollama",
        spec.served_model,
        "FROM /weights/my-model-q4_0.gguf\n",
    )
    assert spec.mounts == ((WEIGHTS, "/weights/my-model-q4_0.gguf"),)
    assert (spec.devices, spec.memory_limit_bytes) == ((0,), 1 << 30)
    assert not {"HOME", "OLLAMA_MODELS", "CUDA_VISIBLE_DEVICES"} & spec.environment.keys()


def test_without_a_program_the_reason_says_what_would_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    reason = ENGINE.install("ollama", "cpu")
    assert isinstance(reason, Reason)
    assert "no program ollama on PATH" in str(reason)
    for way in ("ollama.program=/path/ollama", "engine.launcher=docker", "engine.base_url=URL"):
        assert way in str(reason)


def test_a_model_whose_files_have_no_chat_template_is_left_out() -> None:
    reason = ENGINE.weights(deployment(model="gemma3-270m"))
    assert isinstance(reason, Reason)
    assert "gemma3-270m's files have no chat template" in str(reason)


def test_requests_force_no_length_and_are_neutral_unless_stock() -> None:
    neutral = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert ENGINE.request_fields(Turn((), max_tokens=8), Options(), "matched") == neutral
    assert ENGINE.request_fields(Turn((), max_tokens=8), Options(), "stock") == {}
    assert not ENGINE.forces_length(deployment())


def test_terms_that_ollama_cannot_be_told_are_named_only_where_asked_for() -> None:
    assert ENGINE.unmatched(deployment()) == {}
    asked: dict[str, Any] = {
        "kv_cache_tokens": 4096, "prefix_cache": False, "chunked_prefill": False, "dtype": "float16",
        "tensor_parallel": 2, "seed": 1, "chat_template": "t.jinja", "trust_remote_code": True,
    }  # fmt: skip
    assert ENGINE.unmatched(deployment(EngineTerms(**asked))).keys() == asked.keys()


def test_resolved_values_come_from_the_log_and_the_pages() -> None:
    pages = {"/api/version": captured("version").value, "/api/ps": captured("ps").value}
    assert ENGINE.said(LOG, pages).terms == {
        "threads": 2,
        "cpu_features": "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | "
        "AVX512 = 1 | AVX512_VBMI = 1 | AVX512_VNNI = 1 | LLAMAFILE = 1 | REPACK = 1",
        "graphs": False,
        "concurrent_sequences": 1,
        "kv_cache_tokens": 4096,
        "kv_cache_type": "fp16",
        "kv_cache_bytes": 90 << 20,
        "batch_tokens": 512,
        "ubatch_tokens": 512,
        "attention_backend": "flash",
        "prompt_cache_limit_bytes": 8 << 30,
        "engine_version": "0.33.0-rc2+fb307609",
        "context_length": 4096,
        "weights_type": "Q8_0",
        "model_bytes": 326201507,
        "model_gpu_bytes": 0,
    }


def test_of_several_starts_the_last_counts() -> None:
    again = LOG.replace("n_seq_max             = 1", "n_seq_max = 2").replace("K (f16)", "")
    said = ENGINE.said(LOG + again, {})
    assert said == ENGINE.said(again, {})
    assert (said.terms["concurrent_sequences"], "kv_cache_type" in said.terms) == (2, False)


def test_memory_is_told_by_its_llama_server() -> None:
    memory = ENGINE.said(LOG, {}).memory
    assert {part: round(size / 2**20, 2) for part, size in memory.items()} == {
        "weights": 136.40,
        "kv_cache": 90.0,
        "workspace": 17.70,
    }


def test_of_several_loaded_models_nothing_is_said() -> None:
    [row] = captured("ps").value["models"]
    assert ENGINE.said("", {"/api/ps": {"models": [row, {**row, "name": "other:latest"}]}}).terms == {}


@pytest.mark.parametrize("page", [None, [], "x", {"models": None}, {"models": ["x"]}])
def test_pages_of_another_shape_say_nothing(page: Any) -> None:
    assert ENGINE.said("", {"/api/ps": page, "/api/version": page}).terms == {}


def test_stages_are_found_in_their_order() -> None:
    lines = LOG.splitlines()
    found = [
        next(number for number, line in enumerate(lines) if re.search(stage.pattern, line))
        for stage in ENGINE.stages
    ]
    assert found == sorted(found)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "Error: llama-server binary not found (checked: /usr/lib/ollama/llama-server). Run 'cmake",
            "built without",
        ),
        ("Error: failed to validate GGUF: llama-quantize failed: exit status 1", "llama-quantize"),
        ('Error: unknown command "create" for "ollama"', "Ollama 0.33"),
        ("error: llama-server process has terminated: cudaMalloc failed: out of memory", "Memory ran out"),
    ],
)
def test_what_goes_wrong_has_a_remedy(line: str, said: str) -> None:
    [remedy] = [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, line)]
    assert said in remedy
