"""The llama_cpp engine's own facts: arguments, reasons, and reading of real log lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines.llama_cpp import ENGINE, SERVER, Options
from harness.contracts import (
    Deployment,
    EngineTerms,
    InstallSpec,
    NativeSpec,
    Place,
    Reason,
    Turn,
    Weights,
)
from harness.errors import UserError

PLACE = Place(Path("/env/bin/python"), Path("/w/m-f16.gguf"), "127.0.0.1", 8123, Path("/scratch"))

# As xllamacpp 2026.10.11549 wrote it, shortened.
LOG = """\
xllamacpp 2026.10.11549
0.00.000.318 I cmn  common_param: system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : SSE3 = 1 | AVX2 = 1 | OPENMP = 1 |
0.00.612.931 I llama_model_loader: - kv   0:                       general.architecture str              = gemma3
0.01.164.089 I llama_context: n_ctx                 = 16384
0.01.164.089 I llama_context: n_batch               = 2048
0.01.164.089 I llama_context: n_ubatch              = 512
0.01.164.090 I llama_context: flash_attn            = auto
0.01.306.866 I llama_kv_cache: size =   48.00 MiB (  4096 cells,   3 layers,  4/4 seqs), K (f16):   24.00 MiB, V (f16):   24.00 MiB
0.01.470.066 I llama_kv_cache: size =   60.50 MiB (  1024 cells,  15 layers,  4/4 seqs), K (f16):   30.00 MiB, V (f16):   30.00 MiB
0.01.470.531 I resolve_fused_ops: Flash Attention enabled
0.01.690.218 I srv    load_model: prompt cache is enabled, size limit: 8192 MiB
"""  # noqa: E501
PROPS = {
    "default_generation_settings": {"n_ctx": 4096, "params": {}},
    "total_slots": 4,
    "model_ftype": "Q4_K - Medium",
}


def deployment(
    quantization: str = "fp16", terms: EngineTerms | None = None, options: Options | None = None
) -> Deployment:
    return Deployment(
        "llama_cpp", "gemma3-270m", quantization, terms or EngineTerms(), options or Options(), "label"
    )


def launched(terms: EngineTerms | None = None, options: Options | None = None) -> NativeSpec:
    spec = ENGINE.launch(deployment(terms=terms, options=options), PLACE)
    assert isinstance(spec, NativeSpec)
    return spec


def test_context_is_that_of_one_conversation_times_the_slots() -> None:
    spec = launched(EngineTerms(context_length=2048, concurrent_sequences=4))
    assert spec.argv == (
        "/env/bin/python", "-P", str(SERVER),
        "--model", "/w/m-f16.gguf", "--alias", "gemma3-270m",
        "--host", "127.0.0.1", "--port", "8123",
        "--ctx", "8192", "--parallel", "4",
    )  # fmt: skip
    assert spec.base_url == "http://127.0.0.1:8123/v1"
    assert spec.served_model == "gemma3-270m"
    assert spec.ready_path == "/health"
    assert SERVER.is_file()


def test_one_slot_where_nothing_says_how_many() -> None:
    assert launched(EngineTerms(context_length=512)).argv[-4:] == ("--ctx", "512", "--parallel", "1")


def test_options_become_flags() -> None:
    spec = launched(EngineTerms(prefix_cache=False), Options(threads=3, batch=1024, ubatch=256))
    assert spec.argv[-7:] == (
        "--threads", "3", "--batch", "1024", "--ubatch", "256", "--no-cache-prompt",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["threads", "batch", "ubatch"])
def test_option_below_one_is_the_users_mistake(name: str) -> None:
    with pytest.raises(UserError, match=f"llama_cpp.{name}=0: must be 1 or more"):
        Options(**{name: 0})


@pytest.mark.parametrize("quantization", ["fp16", "bf16", "gguf-q4_k_m", "gguf-q8_0"])
def test_weights_are_gguf_files(quantization: str) -> None:
    assert ENGINE.weights(deployment(quantization)) == Weights("gemma3-270m", quantization, "gguf")


@pytest.mark.parametrize("quantization", ["awq", "gptq", "fp8"])
def test_formats_that_are_no_gguf_have_a_reason(quantization: str) -> None:
    assert ENGINE.weights(deployment(quantization)) == Reason(
        f"llama.cpp serves GGUF files; {quantization} is stored as safetensors"
    )


def test_cpu_environment_is_pinned_with_hashes_and_no_address() -> None:
    spec = ENGINE.install("xllamacpp", "cpu")
    assert isinstance(spec, InstallSpec)
    lock = spec.lock.read_text()
    assert "xllamacpp==" in lock
    assert "gguf==" in lock
    assert "://" not in lock
    pins = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in pin for pin in pins)


def test_cuda_environment_has_a_reason_not_to_exist() -> None:
    reason = ENGINE.install("xllamacpp", "cuda")
    assert isinstance(reason, Reason)
    assert "CPU only" in reason.text


def test_requests_force_the_output_length() -> None:
    assert ENGINE.request_fields(Turn((), max_tokens=8), Options(), "matched") == {"ignore_eos": True}


def test_resolved_values_come_from_the_log_and_the_servers_page() -> None:
    mebibyte = 1024 * 1024
    assert ENGINE.resolved(LOG, {"/props": PROPS}) == {
        "engine_version": "2026.10.11549",
        "threads": 2,
        "cpu_features": "CPU : SSE3 = 1 | AVX2 = 1 | OPENMP = 1",
        "batch_tokens": 2048,
        "ubatch_tokens": 512,
        "kv_cache_type": "f16",
        "kv_cache_bytes": round(108.5 * mebibyte),
        "flash_attention": True,
        "prompt_cache_limit_bytes": 8192 * mebibyte,
        "chat_template": "chatml (the file has none)",
        "context_length": 4096,
        "concurrent_sequences": 4,
        "weights_type": "Q4_K - Medium",
    }


def test_template_of_the_file_is_told_from_the_fallback() -> None:
    line = "0.1 I llama_model_loader: - kv  30:  tokenizer.chat_template str  = {{ bos_token }}\n"
    assert ENGINE.resolved(LOG + line, {})["chat_template"] == "the file's"


def test_nothing_said_is_nothing_resolved() -> None:
    assert ENGINE.resolved("", {}) == {}
    assert ENGINE.resolved("", {"/props": ["odd"]}) == {}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("E ggml_aligned_malloc: insufficient memory (attempted to allocate 58593.75 MB)", "Memory ran out"),
        ("E cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 6144", "Memory ran out"),
        ("E llama_model_load: error loading model: unknown model architecture: 'gemmX9'", "architecture"),
        ("Fatal Python error: Illegal instruction", "instructions"),
        ("E gguf_init_from_reader: invalid magic characters: 'hell', expected 'GGUF'", "damaged"),
        ("error loading model: tensor 'a.weight' data is not within the file bounds, model is", "damaged"),
    ],
)  # fmt: skip
def test_error_lines_have_their_remedy(line: str, remedy: str) -> None:
    found = [hint.remedy for hint in ENGINE.hints if re.search(hint.pattern, line)]
    assert len(found) == 1
    assert remedy in found[0]


def test_a_good_start_has_no_remedy() -> None:
    assert not [hint for hint in ENGINE.hints if re.search(hint.pattern, LOG)]
