"""The vllm engine's own facts: command lines, reasons, cache sizes and requests."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving_bench.engines.model.models import MODELS
from serving_bench.engines.vllm.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    InstallSpec,
    ModelFacts,
    NativeSpec,
    Place,
    Turn,
    WeightsFile,
)

GEMMA = MODELS["gemma3-270m"].facts
# As Llama 3.1 8B: all layers keep all tokens.
PLAIN = ModelFacts("llama", layers=32, kv_heads=8, head_size=128, context_length=131_072)
CPU = Place(
    python=Path("/env/bin/python"),
    weights=Path("/w/gemma3-270m-bf16"),
    host="127.0.0.1",
    port=8123,
    scratch=Path("/scratch"),
    facts=GEMMA,
    chat_template=Path("/w/gemma3.jinja"),
    cache=Path("/cache"),
)
GPU = replace(CPU, weights=Path("/w/llama-awq"), devices=(0,), facts=PLAIN, chat_template=None)
# What the plan fills in for 4 users.
MATCHED = EngineTerms(
    context_length=2048, concurrent_sequences=4, kv_cache_tokens=8192, prefix_cache=True, launcher="native"
)
SERVE = ("/env/bin/python", "-P", "-m", "vllm.entrypoints.cli.main", "serve")


def deployment(
    quantization: str = "bf16", terms: EngineTerms = MATCHED, options: Options | None = None
) -> Deployment:
    return Deployment("vllm", "gemma3-270m", quantization, terms, options or Options(), "label")


def native(*given: Any, place: Place = CPU, **terms_and_options: Any) -> NativeSpec:
    spec = ENGINE.launch(deployment(*given, **terms_and_options), place)
    assert isinstance(spec, NativeSpec)
    return spec


def cache_of(place: Place, terms: EngineTerms = MATCHED, options: Options | None = None) -> int:
    found = re.search(
        r"--kv-cache-memory-bytes=(\d+)", " ".join(native("bf16", terms, options, place=place).argv)
    )
    assert found
    return int(found[1])


def test_matched_on_a_cpu() -> None:
    spec = native()
    assert spec.argv == (
        "/usr/bin/env", "--unset=VLLM_CPU_KVCACHE_SPACE", *SERVE, "/w/gemma3-270m-bf16",
        "--served-model-name=gemma3-270m", "--host=127.0.0.1", "--port=8123",
        "--enable-prompt-tokens-details", "--generation-config=vllm", "--chat-template=/w/gemma3.jinja",
        "--dtype=bfloat16", "--max-model-len=2048", "--max-num-seqs=4", "--enable-prefix-caching",
        "--kv-cache-memory-bytes=159252480",
    )  # fmt: skip
    assert spec.base_url == "http://127.0.0.1:8123/v1"
    assert spec.served_model == "gemma3-270m"
    assert spec.ready_path == "/health"
    assert spec.environment == {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "600",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_CACHE_ROOT": "/cache",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "TRITON_CACHE_DIR": "/cache/triton",
    }


def test_without_a_prefix_cache_there_is_no_route_to_empty_it() -> None:
    assert "VLLM_SERVER_DEV_MODE" not in native(terms=replace(MATCHED, prefix_cache=False)).environment


def test_traffic_with_tools_has_a_parser_of_calls() -> None:
    told = ("--enable-auto-tool-choice", "--tool-call-parser=pythonic")
    assert not set(told) & set(native().argv)
    assert set(told) <= set(native(place=replace(CPU, has_tools=True)).argv)
    options = Options(tool_call_parser="hermes")
    assert "--tool-call-parser=hermes" in native(options=options, place=replace(CPU, has_tools=True)).argv


def test_matched_on_a_gpu() -> None:
    terms = replace(MATCHED, context_length=4096, concurrent_sequences=8, kv_cache_tokens=32_768)
    spec = native("awq", terms, place=GPU)
    # A token takes 32 layers x 2 x 8 heads x 128 x 2 bytes, a block 16 tokens: 2 MiB; 2048 blocks, and one.
    assert spec.argv == (
        *SERVE, "/w/llama-awq",
        "--served-model-name=gemma3-270m", "--host=127.0.0.1", "--port=8123",
        "--enable-prompt-tokens-details", "--generation-config=vllm",
        "--max-model-len=4096", "--max-num-seqs=8", "--enable-prefix-caching",
        f"--kv-cache-memory-bytes={2049 * 2**21}",
    )  # fmt: skip
    assert "VLLM_USE_AOT_COMPILE" not in spec.environment


def test_stock_leaves_everything_to_vllm() -> None:
    stock = EngineTerms(fairness="stock", launcher="native")
    assert native("awq", stock, place=GPU).argv == (
        *SERVE, "/w/llama-awq",
        "--served-model-name=gemma3-270m", "--host=127.0.0.1", "--port=8123",
        "--enable-prompt-tokens-details",
    )  # fmt: skip


def test_tuned_options_are_options_of_the_engine() -> None:
    tuned = ENGINE.tuned
    assert tuned is not None
    spec = native(options=Options(**dict(tuned.options)))  # type: ignore[arg-type]
    assert spec.argv[-2:] == ("--max-num-batched-tokens=16384", "--performance-mode=throughput")


def test_every_term_has_its_flag() -> None:
    terms = EngineTerms(
        prefix_cache=False, chunked_prefill=False, dtype="float32", tensor_parallel=2, seed=7,
        graphs=False, speculation="ngram", speculative_tokens=3, chat_template="/t/mine.jinja",
        trust_remote_code=True, kv_cache_type="fp8", launcher="native",
    )  # fmt: skip
    assert native("awq", terms).argv[10:] == (
        "--generation-config=vllm", "--chat-template=/t/mine.jinja", "--dtype=float32",
        "--kv-cache-dtype=fp8_e4m3", "--seed=7", "--tensor-parallel-size=2",
        "--no-enable-prefix-caching", "--no-enable-chunked-prefill",
        "--enforce-eager", '--speculative-config={"method": "ngram", "num_speculative_tokens": 3}',
        "--trust-remote-code",
    )  # fmt: skip


def test_a_draft_is_named_and_its_layers_are_in_the_kv_cache() -> None:
    terms = replace(MATCHED, speculation="draft:small", speculative_tokens=3)
    draft = WeightsFile(Path("/w/small"), 1, facts=CPU.facts)
    plain, drafted = native(terms=MATCHED).argv, native(terms=terms, place=replace(CPU, draft=draft)).argv
    more = [word for word in drafted if word not in plain]
    assert more[0] == (
        '--speculative-config={"method": "draft_model", "model": "/w/small", "num_speculative_tokens": 3}'
    )
    sizes = [int(words[-1].removeprefix("--kv-cache-memory-bytes=")) for words in (plain, more)]
    assert sizes[1] == 2 * sizes[0]


def test_graphs_and_chunked_prefill_can_be_asked_for() -> None:
    terms = EngineTerms(graphs=True, chunked_prefill=True, launcher="native")
    assert native(terms=terms).argv[-2:] == ("--enable-chunked-prefill", "--no-enforce-eager")


def test_every_option_has_its_flag() -> None:
    options = Options(
        gpu_memory_utilization=0.8, max_num_batched_tokens=4096, block_size=64,
        attention_backend="FLASH_ATTN", quantization="awq",
        performance_mode="interactivity", async_scheduling=False, threads_bind="0-7",
    )  # fmt: skip
    spec = native("awq", EngineTerms(fairness="stock", launcher="native"), options, place=GPU)
    assert spec.argv[10:] == (
        "--gpu-memory-utilization=0.8", "--max-num-batched-tokens=4096", "--block-size=64",
        "--attention-backend=FLASH_ATTN", "--quantization=awq",
        "--performance-mode=interactivity", "--no-async-scheduling",
    )  # fmt: skip
    assert spec.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-7"


@pytest.mark.parametrize(("tokens", "seen"), [(8192, "None\n"), (None, "40\n")])
def test_a_cache_size_in_our_environment_holds_only_where_none_is_asked_for(
    tokens: int | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    argv = native(terms=replace(MATCHED, kv_cache_tokens=tokens)).argv
    look = (sys.executable, "-c", "import os; print(os.environ.get('VLLM_CPU_KVCACHE_SPACE'))")
    begins = argv[: argv.index("/env/bin/python")]
    assert subprocess.run((*begins, *look), capture_output=True, text=True, check=True).stdout == seen


def test_a_longer_start_is_waited_for_inside_too() -> None:
    spec = native(terms=replace(MATCHED, start_timeout_s=1800.0))
    assert spec.environment["VLLM_ENGINE_READY_TIMEOUT_S"] == "1800"


def test_container_sees_weights_and_template_where_they_are_mounted() -> None:
    terms = replace(MATCHED, launcher="docker", memory_limit_bytes=8_000_000_000)
    spec = ENGINE.launch(deployment(terms=terms, options=Options(image="mine:1")), replace(CPU, python=None))
    assert isinstance(spec, ContainerSpec)
    assert spec.image == "mine:1"
    assert spec.entrypoint == "vllm"
    assert spec.arguments == (
        "serve", "/weights/gemma3-270m-bf16",
        "--served-model-name=gemma3-270m", "--host=127.0.0.1", "--port=8123",
        "--enable-prompt-tokens-details", "--generation-config=vllm",
        "--chat-template=/templates/gemma3.jinja",
        "--dtype=bfloat16", "--max-model-len=2048", "--max-num-seqs=4", "--enable-prefix-caching",
        "--kv-cache-memory-bytes=159252480",
    )  # fmt: skip
    assert spec.mounts == (
        (Path("/w/gemma3-270m-bf16"), "/weights/gemma3-270m-bf16"),
        (Path("/w/gemma3.jinja"), "/templates/gemma3.jinja"),
    )
    assert spec.cache == spec.environment["VLLM_CACHE_ROOT"] == "/var/tmp"
    assert spec.environment["TORCHINDUCTOR_CACHE_DIR"] == "/var/tmp/inductor"
    assert spec.environment["HF_HUB_OFFLINE"] == "1"
    assert spec.memory_limit_bytes == 8_000_000_000
    assert spec.devices == ()


def test_container_of_a_gpu_has_its_image_and_devices() -> None:
    terms = replace(MATCHED, launcher="docker")
    spec = ENGINE.launch(deployment("awq", terms), replace(GPU, devices=(1, 3)))
    assert isinstance(spec, ContainerSpec)
    assert spec.image.startswith("vllm/vllm-openai:")
    assert spec.devices == (1, 3)
    assert spec.mounts == ((Path("/w/llama-awq"), "/weights/llama-awq"),)
    assert spec.shm_bytes == 4 * 2**30


# A block of gemma3-270m: 3 of its 18 layers, 128 tokens, 1 KiB a token. Of 2048 tokens the group of full
# layers takes 16 blocks and each of five groups of sliding ones 17. vLLM 0.32.0 then counts 4,116 and 8,212.
@pytest.mark.parametrize(("tokens", "blocks"), [(4096, 203), (8192, 405)])
def test_cache_of_a_model_with_sliding_windows(tokens: int, blocks: int) -> None:
    assert cache_of(CPU, replace(MATCHED, kv_cache_tokens=tokens)) == blocks * 3 * 128 * 1024


def test_long_contexts_need_less_where_windows_slide() -> None:
    terms = replace(MATCHED, context_length=4096)
    # A conversation: 32 blocks of full layers; of sliding ones 511 and the 2048 tokens of a step, 20 blocks,
    # and one. vLLM 0.32.0 counts 8,221 tokens in them.
    assert cache_of(CPU, terms) == (2 * (32 + 5 * 21) + 1) * 3 * 128 * 1024


def test_two_steps_are_in_flight_on_a_gpu() -> None:
    terms = replace(MATCHED, context_length=32_768, kv_cache_tokens=32_768)
    place = replace(GPU, facts=GEMMA)
    # Blocks of 16: 2048 of full layers; of sliding ones 511 + 2 x 8192 tokens: 1056, and one.
    assert cache_of(place, terms) == (2048 + 5 * 1057 + 1) * 3 * 16 * 1024
    one = cache_of(place, terms, Options(async_scheduling=False))
    assert one == (2048 + 5 * 545 + 1) * 3 * 16 * 1024


def test_cache_follows_its_own_type_and_the_devices_that_share_it() -> None:
    terms = replace(MATCHED, tensor_parallel=2)
    token_bytes = 32 * 2 * 8 * 128 * 2
    narrow = replace(MATCHED, kv_cache_type="fp8")
    assert cache_of(GPU) == 513 * 16 * token_bytes
    assert cache_of(GPU, narrow) == 513 * 16 * token_bytes // 2
    assert cache_of(GPU, terms) == 513 * 16 * token_bytes // 2
    assert cache_of(GPU, options=Options(block_size=64)) == 129 * 64 * token_bytes


def test_cache_is_in_blocks_where_the_model_is_not_known() -> None:
    assert native(place=replace(CPU, facts=None)).argv[-2:] == (
        "--block-size=128", "--num-gpu-blocks-override=65",
    )  # fmt: skip


def test_requests_force_length_and_name_every_sampling_parameter() -> None:
    turn = Turn((), max_tokens=8)
    assert ENGINE.request_fields(turn, Options(), "matched") == {
        "ignore_eos": True, "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    }  # fmt: skip
    assert ENGINE.request_fields(turn, Options(), "stock") == {"ignore_eos": True}


def test_cpu_environment_leaves_out_what_breaks_it() -> None:
    spec = ENGINE.install(None, "cpu")
    assert isinstance(spec, InstallSpec)
    assert spec.lock is not None
    names = re.findall(r"^([a-z0-9-]+)==", spec.lock.read_text(), flags=re.MULTILINE)
    # They load libraries of CUDA's, and transformers imports them where they are.
    assert not {"torchaudio", "torchcodec"} & set(names)
    assert "torch" in names
