"""What is read of vLLM's log and streams. tests/data/vllm: vLLM 0.32.0 on a CPU, serving gemma3-270m; logs
are shortened, and paths in them are not those of the machine."""

import re
from pathlib import Path
from typing import Any

import pytest
from places import TESTS

from serving_bench.engines.vllm.engine import ENGINE
from serving_bench.harness.load.answer.chat import classify, decode
from serving_bench.harness.servers.server import quoted_line

DATA = TESTS / "data" / "vllm"
START = (DATA / "start_bf16_cpu.log").read_text()
AWQ_START = (DATA / "start_awq_cpu.log").read_text()
# As it answers /version and /v1/models.
FACTS: dict[str, Any] = {
    "/version": {"version": "0.32.0"},
    "/v1/models": {"object": "list", "data": [{"id": "gemma3-270m", "max_model_len": 2048}]},
}
# From its source, since there was no GPU: v1/worker/gpu_worker.py, platforms/cuda.py, auto_awq.py, core.py.
GPU_LINES = """\
(EngineCore pid=9) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/w/m', \
speculative_config=SpeculativeConfig(method='ngram', model=None, num_spec_tokens=3), dtype=torch.float16, \
max_seq_len=4096, tensor_parallel_size=2, quantization=auto_awq, enforce_eager=True, kv_cache_dtype=fp8, \
seed=7, enable_prefix_caching=False, enable_chunked_prefill=True, pooler_config=None
(Worker pid=9) INFO [cuda.py:507] Using FLASHINFER attention backend out of potential backends: ['A'].
(Worker pid=9) INFO [auto_awq.py:451] Using MarlinLinearKernel for AutoAWQMarlinLinearMethod
(Worker pid=9) INFO [gpu_worker.py:760] Available KV cache memory: 10.5 GiB
(EngineCore pid=9) INFO [kv_cache_utils.py:2327] GPU KV cache size: 172,032 tokens, Maximum concurrency for \
4,096 tokens per request: 42.00x
"""


def remedies(log: str) -> list[str]:
    return [
        hint.remedy for hint in ENGINE.hints if hint.remedy and re.search(hint.pattern, log, re.MULTILINE)
    ]


def test_resolved_values_of_a_start_on_a_cpu() -> None:
    assert ENGINE.said(START, FACTS).terms == {
        "engine_version": "0.32.0",
        "dtype": "bfloat16",
        "weights_type": "bfloat16",
        "context_length": 2048,
        "concurrent_sequences": 4,
        "tensor_parallel": 1,
        "kv_cache_type": "bf16",
        "kv_cache_tokens": 8212,
        "kv_cache_bytes": 405 * 3 * 128 * 1024,
        "seed": 0,
        "prefix_cache": True,
        "chunked_prefill": True,
        "graphs": True,
        "threads": 1,
    }


def test_a_chat_template_that_vllm_was_given_is_said() -> None:
    line = (
        "(APIServer pid=9) INFO 11-25 20:20:47 [api_utils.py:286] non-default args: {'model_tag': '/w/m', "
        "'chat_template': '/t/gemma3.jinja', 'host': '127.0.0.1'}\n"
    )
    assert ENGINE.said(line, {}).terms == {"chat_template": "given"}
    assert "chat_template" not in ENGINE.said(START, FACTS).terms


def test_resolved_kernel_and_weights_of_awq_on_a_cpu() -> None:
    found = ENGINE.said(AWQ_START, {}).terms
    assert found["weights_type"] == "awq"
    assert found["quantization_kernel"] == "CPUWNA16LinearKernel"
    assert found["dtype"] == "bfloat16"
    assert found["kv_cache_tokens"] == 8221
    assert found["graphs"] is False


def test_the_weights_of_a_draft_are_added_and_those_of_a_second_worker_are_not() -> None:
    """As 0.32.0 writes it on a CPU; the second worker tells the size of the same files again."""
    line = "INFO 11-28 08:51:01 [weight_utils.py:1108] Filesystem type: EXT4. Checkpoint size: {} GiB."
    sizes = (("Worker_TP0 pid=7", "0.50"), ("Worker_TP1 pid=8", "0.50"), ("Worker_TP0 pid=7", "0.25"))
    log = "\n".join(f"({worker}) {line.format(size)}" for worker, size in sizes)
    assert ENGINE.said(log, {}).memory == {"weights": 3 << 28}


def test_resolved_values_of_a_start_on_gpus() -> None:
    assert ENGINE.said(GPU_LINES, {}).terms == {
        "engine_version": "0.32.0",
        "dtype": "float16",
        "weights_type": "auto_awq",
        "context_length": 4096,
        "tensor_parallel": 2,
        "kv_cache_type": "fp8",
        "kv_cache_tokens": 172_032,
        "kv_cache_bytes": round(10.5 * 2**30),
        "seed": 7,
        "prefix_cache": False,
        "chunked_prefill": True,
        "graphs": False,
        "speculative_tokens": 3,
        "attention_backend": "FLASHINFER",
        "quantization_kernel": "MarlinLinearKernel",
    }


def test_an_attached_server_says_version_and_context() -> None:
    assert ENGINE.said("", FACTS).terms == {"engine_version": "0.32.0", "context_length": 2048}


@pytest.mark.parametrize(
    "facts", [{}, {"/version": [], "/v1/models": {"data": []}}, {"/v1/models": {"data": [{"id": "a"}]}}]
)
def test_nothing_said_is_nothing_resolved(facts: dict[str, Any]) -> None:
    assert ENGINE.said("non-default args: {broken\nKV cache size: ?", facts).terms == {}


def test_stages_are_reached_in_the_order_of_the_log() -> None:
    lines = START.splitlines()
    reached = {
        stage.name: next(n for n, line in enumerate(lines) if re.search(stage.pattern, line))
        for stage in ENGINE.stages
    }
    assert list(reached) == ["weights_begin", "weights_loaded", "engine_ready"]
    assert list(reached.values()) == sorted(reached.values())
    assert "Starting to load model /weights/" in lines[reached["weights_begin"]]
    assert "Loading weights took 1.44 seconds" in lines[reached["weights_loaded"]]
    assert "took 84.23 s" in lines[reached["engine_ready"]]


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        ("architecture", "does not know the model's architecture"),
        ("model_type", "does not know the model's architecture"),
        ("cache", "does not hold one conversation"),
        ("context", "Lower engine.context_length"),
        ("damaged", "remove it and run `bench prepare`"),
        ("float16", "quantization=bf16"),
        ("memory", "Memory ran out"),
        ("package", "bench install vllm"),
        ("share", "lower vllm.gpu_memory_utilization"),
    ],
)
def test_a_failed_start_has_its_remedy(cause: str, remedy: str) -> None:
    [found] = remedies((DATA / f"fail_{cause}.log").read_text())
    assert remedy in found


@pytest.mark.parametrize(
    ("cause", "quoted"),
    [
        ("cache", "ValueError: To serve at least one request"),
        ("damaged", "SafetensorError: Error while deserializing header"),
        ("memory", "ValueError: Available memory on node 0"),
        ("share", "ValueError: Available memory on node 0"),
    ],
)
def test_the_cause_is_quoted_and_not_that_the_engine_core_failed(tmp_path: Path, cause: str, quoted: str):
    """Also before a traceback longer than what is kept of a log."""
    path, log = tmp_path / "server.log", (DATA / f"fail_{cause}.log").read_text()
    for between in (0, 40):
        root, _, end = log.partition('  File "/env/lib/python3.11/site-packages/vllm/v1/engine/utils.py"')
        path.write_text(root + "  File\n" * between + end)
        assert quoted in quoted_line(path, ENGINE.hints)


# From vLLM's and torch's sources: there was no GPU, and a compiler.
@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("RuntimeError: Failed to infer device type, please set the environment variable", "usable GPU"),
        ("RuntimeError: No CUDA GPUs are available", "usable GPU"),
        ("ImportError: libcuda.so.1: cannot open shared object file", "usable GPU"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "Memory ran out"),
        ("ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory "
         "utilization (0.92, 72.8 GiB).", "lower vllm.gpu_memory_utilization"),
        ("ValueError: Selected backend FLASHMLA is not valid for this configuration.", "attention_backend"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'ninja'", "ninja-build"),
        ("torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found", "install a C++ compiler"),
    ],
)  # fmt: skip
def test_a_failure_that_was_not_provoked_has_its_remedy(line: str, remedy: str) -> None:
    [found] = remedies(line)
    assert remedy in found


def test_a_good_start_has_no_remedy() -> None:
    assert remedies(START + AWQ_START + GPU_LINES) == []


def decoded(name: str) -> Any:
    body = (DATA / name).read_bytes()
    return decode(body, [1], [len(body)])


def test_a_stream_has_the_forced_length_and_a_chunk_for_each_token() -> None:
    answer = decoded("chat.sse")
    assert (answer.input_tokens, answer.output_tokens, answer.cached_tokens) == (13, 12, 0)
    assert len(answer.chunk_ns) == 12
    assert answer.finish_reason == "length"
    assert answer.saw_done
    assert classify(200, b"", answer, "text/event-stream; charset=utf-8") == ("ok", None)


def test_a_prefix_that_was_read_before_is_counted_as_cached() -> None:
    first, again = decoded("prefix_first.sse"), decoded("prefix_again.sse")
    assert (first.input_tokens, first.cached_tokens) == (602, 0)
    assert (again.input_tokens, again.cached_tokens) == (602, 512)
    assert first.text == again.text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("too_long.json", "HTTP 400: This model's maximum context length is 2048 tokens"),
        ("no_room.json", "HTTP 400: min_tokens must be less than or equal to max_tokens=1449, got 2000."),
    ],
)
def test_a_request_that_does_not_fit_is_an_error_with_its_reason(name: str, why: str) -> None:
    body = (DATA / name).read_bytes()
    outcome, error = classify(400, body, decode(body, [1], [len(body)]), "application/json")
    assert outcome == "http_error"
    assert error is not None
    assert error.startswith(why)
