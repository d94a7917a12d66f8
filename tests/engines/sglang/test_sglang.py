"""The sglang engine's own facts: command lines, reasons and requests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving_bench.engines.sglang.engine import ENGINE, Options
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    HttpCall,
    NativeSpec,
    Place,
    Turn,
    WeightsFile,
)
from serving_bench.harness.errors import UserError

CPU = Place(
    python=Path("/env/bin/python"),
    weights=Path("/w/gemma3-270m-bf16"),
    host="127.0.0.1",
    port=8123,
    scratch=Path("/scratch"),
    chat_template=Path("/w/gemma3.jinja"),
    cache=Path("/cache"),
)
GPU = replace(CPU, weights=Path("/w/llama-awq"), devices=(0,), chat_template=None)
# What the plan fills in for 4 users.
MATCHED = EngineTerms(
    context_length=2048, concurrent_sequences=4, kv_cache_tokens=8192, prefix_cache=True, launcher="native"
)
SERVE = ("/env/bin/python", "-P", "-m", "sglang.launch_server")
SERVED = ("--served-model-name=gemma3-270m", "--host=127.0.0.1", "--port=8123")
REPORTS = ("--enable-metrics", "--enable-cache-report")


def deployment(
    quantization: str = "bf16", terms: EngineTerms = MATCHED, options: Options | None = None
) -> Deployment:
    return Deployment("sglang", "gemma3-270m", quantization, terms, options or Options(), "label")


def native(*given: Any, place: Place = CPU, **terms_and_options: Any) -> NativeSpec:
    spec = ENGINE.launch(deployment(*given, **terms_and_options), place)
    assert isinstance(spec, NativeSpec)
    return spec


def test_its_cache_is_flushed_once_the_last_request_is_over() -> None:
    assert ENGINE.reset_cache(deployment()) == (HttpCall("POST", "/flush_cache?timeout=5"),)


def container(terms: EngineTerms, options: Options, place: Place = GPU) -> ContainerSpec:
    spec = ENGINE.launch(deployment("awq", replace(terms, launcher="docker"), options), place)
    assert isinstance(spec, ContainerSpec)
    return spec


def test_matched_on_a_cpu() -> None:
    spec = native()
    assert spec.argv == (
        *SERVE, "--model-path=/w/gemma3-270m-bf16", *SERVED, *REPORTS,
        "--sampling-defaults=openai", "--chat-template=/w/gemma3.jinja",
        "--device=cpu", "--disable-overlap-schedule", "--attention-backend=torch_native",
        "--dtype=bfloat16", "--context-length=2048", "--max-running-requests=4", "--max-total-tokens=8192",
    )  # fmt: skip
    assert spec.base_url == "http://127.0.0.1:8123/v1"
    assert spec.served_model == "gemma3-270m"
    assert spec.ready_path == "/health"
    assert spec.environment == {
        "HF_HUB_OFFLINE": "1",
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_CACHE_DIR": "/cache",
        "FLASHINFER_WORKSPACE_BASE": "/cache",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "TRITON_CACHE_DIR": "/cache/triton",
    }


def test_matched_on_a_gpu() -> None:
    spec = native("awq", place=GPU)
    assert spec.argv == (
        *SERVE, "--model-path=/w/llama-awq", *SERVED, *REPORTS, "--sampling-defaults=openai",
        "--context-length=2048", "--max-running-requests=4", "--max-total-tokens=8192",
    )  # fmt: skip
    assert "SGLANG_USE_CPU_ENGINE" not in spec.environment


def test_stock_leaves_everything_to_sglang() -> None:
    stock = EngineTerms(fairness="stock", launcher="native")
    assert native("awq", stock, place=GPU).argv == (
        *SERVE, "--model-path=/w/llama-awq", *SERVED, *REPORTS,
    )  # fmt: skip


def test_tuned_options_are_options_of_the_engine() -> None:
    tuned = ENGINE.tuned
    assert tuned is not None
    terms = replace(MATCHED, fairness="tuned")
    spec = native("awq", terms, Options(**dict(tuned.options)), place=GPU)  # type: ignore[arg-type]
    assert spec.argv[-3:] == ("--max-running-requests=4", "--max-total-tokens=8192", "--schedule-policy=lpm")


def test_every_term_has_its_flag() -> None:
    terms = EngineTerms(
        prefix_cache=False, chunked_prefill=False, dtype="float16", tensor_parallel=2, seed=7, graphs=False,
        kv_cache_type="fp8", speculation="ngram", speculative_tokens=3, chat_template="/t/mine.jinja",
        launcher="native",
    )  # fmt: skip
    # SGLang counts the token that three proposals follow as one of its draft tokens.
    assert native("awq", terms, place=GPU).argv[10:] == (
        "--sampling-defaults=openai", "--chat-template=/t/mine.jinja",
        "--dtype=float16", "--kv-cache-dtype=fp8_e4m3", "--random-seed=7", "--tp-size=2",
        "--disable-radix-cache", "--chunked-prefill-size=-1", "--disable-decode-cuda-graph",
        "--disable-prefill-cuda-graph",
        "--speculative-algorithm=NGRAM", "--speculative-num-draft-tokens=4",
    )  # fmt: skip


def test_a_draft_proposes_one_token_after_the_other() -> None:
    terms = EngineTerms(speculation="draft:small", speculative_tokens=3, launcher="native")
    place = replace(GPU, draft=WeightsFile(Path("/w/small"), 1))
    assert native("bf16", terms, place=place).argv[-5:] == (
        "--speculative-algorithm=STANDALONE", "--speculative-draft-model-path=/w/small",
        "--speculative-num-steps=3", "--speculative-eagle-topk=1", "--speculative-num-draft-tokens=4",
    )  # fmt: skip


def test_remote_code_is_run_only_when_asked_for() -> None:
    asked = EngineTerms(launcher="native", trust_remote_code=True)
    assert "--trust-remote-code" in native(terms=asked, place=GPU).argv
    assert "--trust-remote-code" not in native(terms=EngineTerms(launcher="native"), place=GPU).argv


@pytest.mark.parametrize("quantization", ["awq", "gptq", "fp8", "w4a16"])
def test_quantized_kernels_are_not_on_a_cpu_without_its_own_build(quantization: str) -> None:
    with pytest.raises(UserError, match=f"no kernels for {quantization} with torch_native"):
        native(quantization, EngineTerms(launcher="native"), place=CPU)
    own = Options(attention_backend="intel_amx")
    argv = native(quantization, EngineTerms(launcher="native"), own).argv
    assert "--attention-backend=intel_amx" in argv


def test_what_sglang_does_anyway_needs_no_flag() -> None:
    said = EngineTerms(prefix_cache=True, chunked_prefill=True, graphs=True, launcher="native")
    assert native(terms=said, place=GPU).argv == native(terms=EngineTerms(launcher="native"), place=GPU).argv


def test_every_option_has_its_flag() -> None:
    options = Options(
        mem_fraction_static=0.8, attention_backend="fa3", sampling_backend="pytorch", schedule_policy="lof",
        schedule_conservativeness=0.3, chunked_prefill_size=4096, max_prefill_tokens=8192, page_size=16,
        num_continuous_decode_steps=2, cuda_graph_max_bs_decode=64,
        quantization="awq_marlin", enable_mixed_chunk=True, enable_torch_compile=True,
    )  # fmt: skip
    plain = native("awq", EngineTerms(launcher="native"), place=GPU)
    argv = native("awq", EngineTerms(launcher="native"), options, place=GPU).argv
    assert argv[: len(plain.argv)] == plain.argv
    assert argv[len(plain.argv) :] == (
        "--attention-backend=fa3", "--mem-fraction-static=0.8", "--sampling-backend=pytorch",
        "--schedule-policy=lof", "--schedule-conservativeness=0.3", "--chunked-prefill-size=4096",
        "--max-prefill-tokens=8192", "--page-size=16", "--num-continuous-decode-steps=2",
        "--cuda-graph-max-bs-decode=64", "--quantization=awq_marlin",
        "--enable-mixed-chunk", "--enable-torch-compile",
    )  # fmt: skip


def test_an_environment_with_cpu_kernels_may_use_them() -> None:
    argv = native(options=Options(attention_backend="intel_amx")).argv
    assert [part for part in argv if "attention" in part] == ["--attention-backend=intel_amx"]


def test_chunks_cannot_be_off_and_of_a_size() -> None:
    off = replace(MATCHED, chunked_prefill=False)
    with pytest.raises(UserError, match="leave out one of them"):
        native(terms=off, options=Options(chunked_prefill_size=512))


def test_a_template_must_be_named_so_that_sglang_reads_it_as_one() -> None:
    with pytest.raises(UserError, match=r"engine.chat_template=/t/mine.txt: .*name it .jinja"):
        native(terms=replace(MATCHED, chat_template="/t/mine.txt"))


def test_a_container_sees_weights_and_template_read_only() -> None:
    spec = container(
        replace(MATCHED, chat_template="/t/mine.jinja", memory_limit_bytes=2**33),
        Options(image="example/sglang:1"),
    )
    assert spec.image == "example/sglang:1"
    assert spec.entrypoint is None
    assert spec.arguments == (
        "python3", "-m", "sglang.launch_server", "--model-path=/weights/llama-awq", *SERVED, *REPORTS,
        "--sampling-defaults=openai", "--chat-template=/templates/mine.jinja",
        "--context-length=2048", "--max-running-requests=4", "--max-total-tokens=8192",
    )  # fmt: skip
    assert spec.mounts == (
        (Path("/w/llama-awq"), "/weights/llama-awq"),
        (Path("/t/mine.jinja"), "/templates/mine.jinja"),
    )
    assert spec.devices == (0,)
    assert spec.shm_bytes == 32 * 2**30
    assert spec.memory_limit_bytes == 2**33
    assert spec.cache == "/var/tmp"
    assert spec.environment == {
        "HF_HUB_OFFLINE": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "SGLANG_CACHE_DIR": "/var/tmp", "FLASHINFER_WORKSPACE_BASE": "/var/tmp",
        "TORCHINDUCTOR_CACHE_DIR": "/var/tmp/inductor", "TRITON_CACHE_DIR": "/var/tmp/triton",
    }  # fmt: skip


def test_a_container_takes_the_upstream_image_unless_one_is_given() -> None:
    assert container(MATCHED, Options()).image.startswith("lmsysorg/sglang:v0.5.")


def test_a_container_on_a_cpu_has_kernels_of_its_own_and_no_known_image() -> None:
    place = replace(GPU, devices=())
    arguments = container(MATCHED, Options(image="example/sglang:xeon"), place).arguments
    assert "--device=cpu" in arguments
    assert not [part for part in arguments if "attention" in part]
    with pytest.raises(UserError, match="sglang has no image for cpu"):
        container(MATCHED, Options(), place)


def test_lengths_are_forced_and_sampling_is_said() -> None:
    forced = {"ignore_eos": True}
    assert ENGINE.request_fields(Turn((), 8), Options(), "stock") == forced
    said = ENGINE.request_fields(Turn((), 8), Options(), "matched")
    assert said == ENGINE.request_fields(Turn((), 8), Options(), "tuned")
    assert said == {
        **forced,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
