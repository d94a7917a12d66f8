"""What is read of SGLang's log, pages and streams. tests/data/sglang: SGLang 0.5.23 on a CPU, serving
gemma3-270m with the matched terms of 512 tokens x 4 and a stand-in for its kernels; paths shortened, the list
of its arguments and what it says of other models left out, of failed starts the end."""

import json
import re
from typing import Any

import pytest
from places import TESTS

from serving_bench.engines.sglang.log import HINTS, STAGES, said
from serving_bench.harness.load.answer.chat import Decoded, classify, decode
from serving_bench.harness.servers.server import log_tail, telling_line

DATA = TESTS / "data" / "sglang"
START = (DATA / "start_bf16_cpu.log").read_text()
FACTS = {
    "/server_info": json.loads((DATA / "server_info_cpu.json").read_text()),
    "/v1/models": json.loads((DATA / "models_cpu.json").read_text()),
}
# From SGLang's source, srt/layers/quantization/awq/awq.py and srt/model_executor: there was no GPU.
AWQ_LINES = """\
[2026-11-25 17:26:20] The model is convertible to awq_marlin during runtime. Using awq_marlin kernel.
[2026-11-25 17:26:28] Load weight end. elapsed=1.93 s, type=LlamaForCausalLM, quant=awq, bits=4.
"""


def remedies(log: str) -> list[str]:
    return [hint.remedy for hint in HINTS if hint.remedy and re.search(hint.pattern, log)]


def with_info(**fields: Any) -> dict[str, Any]:
    return {"/server_info": {**FACTS["/server_info"], **fields}}


def test_what_it_uses_is_read_from_log_and_pages() -> None:
    assert said(START, FACTS).terms == {
        "engine_version": "0.5.23",
        "context_length": 512,
        "concurrent_sequences": 4,
        "kv_cache_tokens": 2048,
        "kv_cache_bytes": round(0.035 * 2**30),
        "kv_cache_type": "bf16",
        "prefix_cache": True,
        "chunked_prefill": True,
        "dtype": "bfloat16",
        "weights_type": "bfloat16",
        "tensor_parallel": 1,
        "seed": FACTS["/server_info"]["random_seed"],
        "graphs": False,
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "schedule_policy": "fcfs",
        "page_size_tokens": 1,
        "chat_template": "/templates/gemma3.jinja",
        "threads": 2,
        "kernel_stand_in": True,
    }


def test_an_attached_server_says_the_same_without_a_log() -> None:
    found = said("", FACTS).terms
    own = {"kv_cache_type", "chat_template", "threads", "kernel_stand_in"}
    assert found == {term: value for term, value in said(START, FACTS).terms.items() if term not in own}


def test_what_the_log_of_a_server_without_its_pages_says() -> None:
    found = said(START, {}).terms
    assert found["context_length"] == 512
    assert found["kv_cache_tokens"] == 2048
    assert "engine_version" not in found


def test_another_server_tells_nothing() -> None:
    assert said("", {}).terms == {}
    assert said("", {"/server_info": {"detail": "Not Found"}, "/v1/models": {"data": []}}).terms == {}


def test_the_kernel_really_used_is_read_from_the_log() -> None:
    found = said(START + AWQ_LINES, FACTS).terms
    assert found["weights_type"] == "awq"
    assert found["quantization_kernel"] == "awq_marlin"


def test_terms_that_were_switched_off_or_on() -> None:
    found = said("", with_info(disable_radix_cache=True, chunked_prefill_size=-1)).terms
    assert (found["prefix_cache"], found["chunked_prefill"]) == (False, False)
    found = said("", with_info(speculative_algorithm="NGRAM", speculative_num_draft_tokens=4)).terms
    assert found["speculative_tokens"] == 3
    found = said("", with_info(cuda_graph_config={"decode": {"backend": "full"}})).terms
    assert found["graphs"] is True


def test_two_attention_backends_are_both_named() -> None:
    found = said("", with_info(attention_backend="flashinfer", prefill_attention_backend="fa3")).terms
    assert found["attention_backend"] == "fa3 (prompts), flashinfer (tokens)"


def test_stages_are_reached_in_their_order() -> None:
    lines = START.splitlines()
    reached = {
        stage.name: next(i for i, line in enumerate(lines) if re.search(stage.pattern, line))
        for stage in STAGES
    }
    assert list(reached) == ["weights_begin", "weights_loaded", "engine_ready"]
    assert list(reached.values()) == sorted(reached.values())
    assert "Load weight begin. avail mem=" in lines[reached["weights_begin"]]
    assert "Load weight end. elapsed=" in lines[reached["weights_loaded"]]
    assert "max_total_num_tokens=2048, " in lines[reached["engine_ready"]]


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        ("context", "lower engine.context_length"),
        ("no_cuda", "CUDA was not found"),
        ("cpu_torch", "CUDA was not found"),
        ("no_kernels", "make sglang-cpu-env"),
        ("no_memory", "raise sglang.mem_fraction_static"),
        ("awq_cpu", "no kernel for this quantization"),
        ("ngram_cpu", "needs SGLang's compiled kernels"),
    ],
)
def test_a_failed_start_has_its_remedy(cause: str, remedy: str) -> None:
    [found] = remedies((DATA / f"fail_{cause}.log").read_text())
    assert remedy in found


@pytest.mark.parametrize(
    ("cause", "quoted"),
    [
        ("awq_cpu", "ValueError: torch.bfloat16 is not supported for quantization method awq."),
        ("no_memory", "ValueError: Loaded weights leave no GPU memory for the KV cache"),
        ("no_cuda", "RuntimeError: No accelerator (CUDA,"),
    ],
)
def test_the_cause_of_a_failed_start_is_quoted_and_not_that_a_child_failed(cause: str, quoted: str) -> None:
    assert telling_line(log_tail(DATA / f"fail_{cause}.log"), HINTS).startswith(quoted)


# From the sources of SGLang, torch and uvicorn: there was no GPU, and the port was free.
@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "engine.kv_cache_tokens"),
        ("Exception: Capture cuda graph failed: CUDA error", "sglang.cuda_graph_max_bs_decode"),
        ("ValueError: The quantization method awq_marlin is not supported for the current GPU. Minimum "
         "capability: 80. Current capability: 75.", "no kernel for this quantization"),
        ("ValueError: Model architectures ['NewForCausalLM'] are not supported for now.", "architecture"),
    ],
)  # fmt: skip
def test_what_was_not_made_to_fail_has_its_remedy(line: str, remedy: str) -> None:
    [found] = remedies(line)
    assert remedy in found


def test_a_good_start_has_no_remedy() -> None:
    assert remedies(START) == []


def decoded(name: str) -> Decoded:
    body = (DATA / name).read_bytes()
    return decode(body, [1], [len(body)])


def test_a_stream_has_the_forced_length_and_counts_what_came_from_the_cache() -> None:
    answer = decoded("chat_cached.sse")
    assert answer.output_tokens == 8
    assert answer.input_tokens
    assert answer.cached_tokens == answer.input_tokens - 1
    assert len(answer.chunk_ns) == 8
    assert answer.finish_reason == "length"
    assert answer.saw_done
    assert classify(200, b"", answer, "text/event-stream; charset=utf-8") == ("ok", None)


def test_a_prompt_that_is_too_long_is_an_http_error() -> None:
    body = (DATA / "too_long.json").read_bytes()
    outcome, error = classify(400, body, decode(body, [1], [len(body)]), "application/json")
    assert outcome == "http_error"
    assert error is not None
    assert "longer than the model's context length (512 tokens)" in error
