"""The chat template, and the prompts and tokens that a real llama.cpp made of it (tests/data/weights)."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from places import TESTS

from serving_bench.engines.model.models import MODELS

GOLDEN: dict[str, Any] = json.loads((TESTS / "data/weights/gemma3_tokens.json").read_text())


# As the model's authors publish it.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def text_of(path: Path | None) -> str:
    assert path is not None
    return path.read_text()


def rendered(messages: list[dict[str, Any]], template: str | None = None, **more: Any) -> str:
    """As transformers and vLLM render it: trim_blocks and lstrip_blocks on. `template`: not Gemma's."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made = environment.from_string(template or text_of(MODELS["gemma3-270m"].chat_template))
    return made.render(messages=messages, bos_token="<bos>", add_generation_prompt=True, **more)


@pytest.mark.parametrize("golden", GOLDEN["prompts"], ids=lambda golden: golden["name"])
def test_prompt_is_what_llama_cpp_renders_after_one_bos(golden: dict[str, Any]) -> None:
    # llama.cpp takes the template's BOS off, since it puts one before each prompt itself.
    assert rendered(golden["messages"]) == "<bos>" + golden["prompt"]
    assert golden["tokens"].count(2) == 1
    assert golden["tokens"][0] == 2


def test_system_text_goes_before_the_next_turn_and_blanks_around_a_message_are_cut() -> None:
    messages = [{"role": "system", "content": " Be short. "}, {"role": "user", "content": " Hello\n"}]
    assert rendered(messages) == (
        "<bos><start_of_turn>user\nBe short.\n\nHello<end_of_turn>\n<start_of_turn>model\n"
    )


CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ],
]
FUNCTION = {"name": "search", "description": "Search.", "parameters": {"type": "object"}}
CALL = {"type": "function", "function": {"name": "search", "arguments": '{"query": "oak"}'}}
STEPS = [
    {"role": "user", "content": "What is an oak?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "a tree"},
]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_without_tools_a_tool_template_is_the_models_own(name: str, chat: list[dict[str, Any]]) -> None:
    model = MODELS[name]
    own = text_of(model.chat_template) if model.chat_template else SMOLLM2
    assert rendered(chat, text_of(model.tool_template)) == rendered(chat, own)


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_a_tool_template_shows_tools_calls_and_results(name: str) -> None:
    template = text_of(MODELS[name].tool_template)
    prompt = rendered(STEPS, template, tools=[{"type": "function", "function": FUNCTION}])
    listed, called, result = (prompt.index(part) for part in ('"Search."', '>{"query": "oak"}', "a tree"))
    assert listed < called < result
    # engines differ in whether they hand a call's arguments on as text
    parsed = {**CALL, "function": {"name": "search", "arguments": {"query": "oak"}}}
    as_object = [STEPS[0], {**STEPS[1], "tool_calls": [parsed]}, STEPS[2]]
    assert rendered(as_object, template, tools=[{"type": "function", "function": FUNCTION}]) == prompt
