"""A run against a server that answers as TabbyAPI's sources (2026-08-13) have it, which serves EXL2 and EXL3.

Of endpoints/OAI/utils/chat_completion.py, endpoints/core/types/model.py and common/auth.py. It is none.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_command import attached, bench, made
from fake_http import Answer, Request, fake_http, page, stream

from serving_bench.engines.openai.engine import ENGINE

NAME, KEY = "Llama-3.1-8B-exl3-4.0bpw", "tabby-key"
CARD = {
    "id": NAME,
    "object": "model",
    "created": 1,
    "owned_by": "tabbyAPI",
    "logging": None,
    "parameters": {"max_seq_len": 8192, "cache_size": 16384, "cache_mode": "FP16", "rope_scale": 1.0,
                   "rope_alpha": 1.0, "max_batch_size": 4, "chunk_size": 2048, "prompt_template": "chatml",
                   "prompt_template_content": "{{ messages }}", "use_vision": False, "draft": None},
}  # fmt: skip
WORDS = ("The ", "sea ", "is ", "wide.\n")


def events(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The deltas; then, where usage is asked for, a chunk with usage, a choice, and the reason of the end."""
    fixed = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": NAME}
    count, has_usage = body["max_tokens"], body["stream_options"]["include_usage"]
    deltas: list[dict[str, Any]] = [{"content": WORDS[number % len(WORDS)]} for number in range(count)]
    found = [{**fixed, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    inputs = sum(3 + len(message["content"].split()) for message in body["messages"])
    usage = {
        "prompt_tokens": inputs,
        "prompt_time": 0.01,
        "prompt_tokens_per_sec": 100.0,
        "completion_tokens": count,
        "completion_time": 0.1,
        "completion_tokens_per_sec": 10.0,
        "total_tokens": inputs + count,
        "total_time": 0.11,
    }
    last = {"index": 0, "delta": {}, "finish_reason": "length"}
    return [*found, {**fixed, "choices": [last], **({"usage": usage} if has_usage else {})}]


def tabby(request: Request) -> Answer:
    pages = {"/v1/models": {"object": "list", "data": [{**CARD, "parameters": None}]}, "/v1/model": CARD}
    if request.method == "GET":
        if request.key != f"Bearer {KEY}":
            return page({"detail": "Invalid API key"}, 401)
        return page(pages[request.path]) if request.path in pages else page({"detail": "Not Found"}, 404)
    if not request.value.get("stream"):
        message = {"role": "assistant", "content": "The"}
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        choice = {"index": 0, "finish_reason": "length", "message": message}
        return page({"id": "cmpl-1", "choices": [choice], "model": NAME, "usage": usage})
    # sse_starlette ends lines with CR LF, and sends a comment now and then.
    answer = stream(*events(request.value), "[DONE]", end="\r\n\r\n")
    return replace(answer, body=[b": ping - 2026-11-28 10:00:00+00:00\r\n\r\n", *answer.body])


def test_a_run_claims_the_quantization_and_reports_what_the_server_has(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    with fake_http(tabby) as server:
        keys = attached(server.base_url, f"model={NAME}", "quantization=exl3-4.0bpw")
        done = bench(place, "run", *keys, "--output", place.run_dir, OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    [start] = place.starts()
    assert start["version"] == "TabbyAPI, version not said"
    assert start["resolved"] == {
        "engine_version": "TabbyAPI, version not said",
        "loaded_model": NAME,
        "context_length": 8192,
        "concurrent_sequences": 4,
        "kv_cache_tokens": 16384,
        "kv_cache_type": "FP16",
        "chat_template": "chatml",
    }
    [cell] = place.cells().values()
    assert cell["status"] == "completed"
    assert "openai exl3-4.0bpw" in place.report()
    assert KEY not in place.report()


@pytest.mark.parametrize(
    "page", [None, [], {"id": "m"}, {"owned_by": "vllm", "parameters": {"max_seq_len": 1}}]
)
def test_other_servers_pages_say_nothing(page: Any) -> None:
    assert ENGINE.said("", {"/v1/model": page}).terms == {}
