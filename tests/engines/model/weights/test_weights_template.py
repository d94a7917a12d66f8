"""The chat template, and the prompts and tokens that a real llama.cpp made of it (tests/data/weights)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from places import TESTS

from engines.model.models import MODELS

GOLDEN: dict[str, Any] = json.loads((TESTS / "data/weights/gemma3_tokens.json").read_text())


def rendered(messages: list[dict[str, str]]) -> str:
    """As transformers and vLLM render it: trim_blocks and lstrip_blocks on."""
    path = MODELS["gemma3-270m"].chat_template
    assert path is not None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(path.read_text())
    return template.render(messages=messages, bos_token="<bos>", add_generation_prompt=True)


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
