"""Anthropic's and Gemini's APIs: what bench asks, and their documented streams decoded as OpenAI's are."""

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from native_apis import block, error_of, finished, good, message, named, part, response, text_block

from serving_bench.harness.contracts import Form, Message, Tool, ToolCall, Turn
from serving_bench.harness.load.answer import APIS
from serving_bench.harness.load.answer.chat import Decoded, classify, decode

NATIVE = ("anthropic", "gemini")
SYSTEM, USER = Message("system", "Be brief."), Message("user", "What is the weather?")
CALL = ToolCall("weather", '{"city":"Bergen"}')
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
HISTORY = (SYSTEM, USER, Message("assistant", "", CALL), Message("tool", "4 degrees"))


def requested(
    api: str, history: Sequence[Message], form: Form | None = None, **engine_fields: Any
) -> dict[str, Any]:
    """The request as it goes over the wire."""
    fields = APIS[api].request("large-1", Turn((), 24, form=form), history, engine_fields)
    made: dict[str, Any] = json.loads(msgspec.json.encode(fields))
    return made


def read(api: str, events: Sequence[bytes]) -> Decoded:
    """Decode events of which the first arrived at 0, the next at 1, and so on."""
    return decode(b"".join(events), range(len(events)), list(accumulate(map(len, events))), APIS[api])


def outcome(api: str, events: Sequence[bytes], status: int = 200) -> tuple[str, str | None]:
    return classify(status, b"".join(events), read(api, events))


def counts(decoded: Decoded) -> tuple[int | None, ...]:
    return decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens


# --- requests ---


def test_anthropic_takes_the_system_prompt_apart_and_calls_in_blocks() -> None:
    assert requested("anthropic", HISTORY, temperature=0.5) == {
        "model": "large-1",
        "max_tokens": 24,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the weather?"}]},
                     {"role": "assistant",
                      "content": [{"type": "tool_use", "id": "call00002", "name": "weather",
                                   "input": {"city": "Bergen"}}]},
                     {"role": "user",
                      "content": [{"type": "tool_result", "tool_use_id": "call00002",
                                   "content": "4 degrees"}]}],
        "stream": True,
        "temperature": 0.5,
    }  # fmt: skip


def test_gemini_takes_the_system_prompt_apart_and_calls_in_parts() -> None:
    assert requested("gemini", HISTORY, temperature=0.5) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "What is the weather?"}]},
                     {"role": "model",
                      "parts": [{"functionCall": {"name": "weather", "args": {"city": "Bergen"}},
                                 "thoughtSignature": "skip_thought_signature_validator"}]},
                     {"role": "user",
                      "parts": [{"functionResponse": {"name": "weather",
                                                      "response": {"result": "4 degrees"}}}]}],
        "generationConfig": {"maxOutputTokens": 24, "temperature": 0.5},
    }  # fmt: skip


@pytest.mark.parametrize(("api", "name"), [("anthropic", "messages"), ("gemini", "contents")])
def test_an_answer_without_text_is_not_sent_back(api: str, name: str) -> None:
    sent = requested(api, (USER, Message("assistant", ""), Message("user", "And now?")))
    assert [each["role"] for each in sent[name]] == ["user", "user"]
    assert "system" not in sent
    assert "systemInstruction" not in sent


def test_a_tool_must_be_called() -> None:
    form = Form("weather", (Tool("weather", "Tells it.", SCHEMA),))
    told = {"name": "weather", "description": "Tells it."}
    anthropic, gemini = (requested(api, (USER,), form) for api in NATIVE)
    assert anthropic["tools"] == [{**told, "input_schema": SCHEMA}]
    assert anthropic["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert gemini["tools"] == [{"functionDeclarations": [{**told, "parametersJsonSchema": SCHEMA}]}]
    assert gemini["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}


def test_a_schema_binds_the_answer_only_where_it_is_forced() -> None:
    forced, asked = (Form("city", schema=SCHEMA, is_forced=each) for each in (True, False))
    anthropic, gemini = (requested(api, (USER,), forced) for api in NATIVE)
    assert anthropic["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert gemini["generationConfig"] == {
        "maxOutputTokens": 24,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    assert [requested(api, (USER,), asked) for api in NATIVE] == [requested(api, (USER,)) for api in NATIVE]


@pytest.mark.parametrize(
    ("api", "given", "base"),
    [
        ("anthropic", "https://api.anthropic.com", "https://api.anthropic.com/v1"),
        ("anthropic", "http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("gemini", "https://host/", "https://host/v1beta"),
        ("gemini", "https://host/v1", "https://host/v1"),
        ("anthropic", "https://host/v2beta1/", "https://host/v2beta1"),
        ("anthropic", "https://host/av1", "https://host/av1/v1"),
        ("openai", "http://127.0.0.1:8000/openai/", "http://127.0.0.1:8000/openai"),
    ],
)
def test_the_version_may_be_left_out_of_the_base_url(api: str, given: str, base: str) -> None:
    assert APIS[api].base_of(given) == base


def test_a_model_cannot_change_the_path() -> None:
    assert APIS["gemini"].path_of("a/b?c") == "/models/a%2Fb%3Fc:streamGenerateContent?alt=sse"


# --- answers ---


@pytest.mark.parametrize("api", NATIVE)
def test_a_text_stream(api: str) -> None:
    events = good(api, "Hel", "lo", cached=7)
    decoded, first = read(api, events), 3 if api == "anthropic" else 0
    assert decoded == Decoded(
        chunk_ns=(first, first + 1),
        text="Hello",
        finish_reason="stop",
        input_tokens=27,
        output_tokens=2,
        cached_tokens=7,
        first_answer_ns=first,
    )
    assert outcome(api, events) == ("ok", None)


def test_anthropics_input_is_what_was_new_and_what_the_cache_read_and_wrote() -> None:
    events = message(*text_block(0, "Hi"), stop="max_tokens", output=9, cached=100, written=30)
    decoded = read("anthropic", events)
    assert counts(decoded) == (150, 9, 100)
    assert decoded.finish_reason == "length"


def test_counts_that_come_at_the_end_alone_are_taken_from_there() -> None:
    """Some gateways do not know the counts yet when they send message_start."""
    start = named("message_start", message={"usage": {"input_tokens": 0, "output_tokens": 0}})
    end = named(
        "message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 11, "output_tokens": 2}
    )
    assert counts(read("anthropic", [start, *text_block(0, "Hi"), end])) == (11, 2, None)


def test_geminis_thoughts_are_output_and_its_last_counts_hold() -> None:
    first = response(part(text="Hm", thought=True), thoughtsTokenCount=3)
    rest = response(finished("MAX_TOKENS", text="Hi"), candidatesTokenCount=2, thoughtsTokenCount=5)
    decoded = read("gemini", [*first, *rest])
    assert counts(decoded) == (20, 7, None)
    assert (decoded.text, decoded.reasoning, decoded.finish_reason) == ("Hi", "Hm", "length")


THINKING = {
    "anthropic": message(
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Let me "},
            {"type": "thinking_delta", "thinking": "see."},
            {"type": "signature_delta", "signature": "EqQB"},
        ),
        *text_block(1, "Rain."),
    ),
    "gemini": response(
        part(text="Let me ", thought=True), part(text="see.", thought=True), finished("STOP", text="Rain.")
    ),
}


@pytest.mark.parametrize("api", NATIVE)
def test_thinking_is_told_apart_from_the_answer(api: str) -> None:
    decoded = read(api, THINKING[api])
    assert (decoded.reasoning, decoded.text) == ("Let me see.", "Rain.")
    assert (decoded.reasoning_chunks, len(decoded.chunk_ns)) == (2, 3)
    assert decoded.first_answer_ns == decoded.chunk_ns[2] > decoded.chunk_ns[0]


CALLING = {
    "anthropic": message(
        *block(
            0,
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"city": '},
            {"type": "input_json_delta", "partial_json": '"Bergen"}'},
        ),
        *block(
            1,
            {"type": "tool_use", "id": "toolu_2", "name": "tide", "input": {}},
            {"type": "input_json_delta", "partial_json": "{}"},
        ),
        stop="tool_use",
    ),
    "gemini": response(
        part(functionCall={"name": "weather", "args": {"city": "Bergen"}}, thoughtSignature="c2lnbmVk"),
        finished("STOP", functionCall={"name": "tide"}),
    ),
}


@pytest.mark.parametrize("api", NATIVE)
def test_tool_calls_are_put_together(api: str) -> None:
    decoded = read(api, CALLING[api])
    assert [(call.name, json.loads(call.arguments)) for call in decoded.calls] == [
        ("weather", {"city": "Bergen"}),
        ("tide", {}),
    ]
    assert outcome(api, CALLING[api]) == ("ok", None)
    # The call's name is the first of it; a part without text is none.
    assert len(decoded.chunk_ns) == (5 if api == "anthropic" else 2)


OVERLOADED = error_of("anthropic", 529, "overloaded_error", "Overloaded")
UNAVAILABLE = error_of("gemini", 503, "UNAVAILABLE", "The model is overloaded.")
ERRORS = {
    "an error event": (
        "anthropic",
        [*message(*text_block(0, "Hi"), stop=None), b"event: error\ndata: %b\n\n"],
        OVERLOADED,
    ),
    "an error as data": ("gemini", [*response(part(text="Hi")), b"data: %b\r\n\r\n"], UNAVAILABLE),
    "an error in lines": ("gemini", [*response(part(text="Hi")), b"%b\n"], UNAVAILABLE),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_the_middle_of_a_stream_is_the_servers(name: str) -> None:
    api, (*events, last), error = ERRORS[name]
    events.append(last % json.dumps(error, indent=1 if last == b"%b\n" else None).encode())
    assert outcome(api, events) == ("server_error", error["error"]["message"])
    assert read(api, events).text == "Hi", "what came before is kept"


REFUSALS = {
    "anthropic": message(*text_block(0, "I can"), stop="refusal"),
    "gemini": response(part(text="I can"), finished("SAFETY")),
    "gemini, of the prompt": response({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    "openai": [
        b'data: {"choices":[{"delta":{"content":"I can"}}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"content_filter"}]}\n\n',
    ],
}


@pytest.mark.parametrize("whose", REFUSALS)
def test_a_refusal_is_no_answer(whose: str) -> None:
    said = "the model, or a filter, refused to answer or to go on (content_filter)"
    assert outcome(whose.partition(",")[0], REFUSALS[whose]) == ("server_error", said)


@pytest.mark.parametrize("api", NATIVE)
def test_a_stream_that_stops_before_its_end_is_cut(api: str) -> None:
    whole = good(api, "Hel", "lo")
    kept = whole[:-3] if api == "anthropic" else whole[:-1]
    error = "the answer is cut: neither a finish_reason nor [DONE] came"
    assert outcome(api, kept) == ("protocol_error", error)


@pytest.mark.parametrize("api", NATIVE)
def test_what_refuses_a_request_is_named_with_its_message(api: str) -> None:
    page = json.dumps(error_of(api, 429, "rate_limit_error", "Too many.")).encode()
    assert outcome(api, [page], 429) == ("http_error", "HTTP 429: Too many.")


@pytest.mark.parametrize("api", NATIVE)
@pytest.mark.parametrize("data", ["[]", "3", '{"candidates": 3, "delta": 3}', '{"type":'])
def test_data_that_is_not_of_the_api_is_a_protocol_error(api: str, data: str) -> None:
    assert outcome(api, [f"data: {data}\n\n".encode()]) == (
        "protocol_error",
        f"not a chunk in an event: {data}",
    )


@pytest.mark.parametrize("api", NATIVE)
def test_events_of_a_kind_that_is_new_are_passed_over(api: str) -> None:
    new = b'event: vendor_event\ndata: {"type": "vendor_event", "fields": [1]}\n\n'
    assert read(api, [new, *good(api, "Hi")]).text == "Hi"
