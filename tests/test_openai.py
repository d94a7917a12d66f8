"""The engine that attaches to a running server: what it asks for, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.openai import ENGINE, Options
from harness.contracts import AttachSpec, Deployment, EngineTerms, LaunchSpec, Message, Place, Turn
from harness.errors import UserError

TURN = Turn(messages=(Message("user", "hello"),), max_tokens=24)


def launch(base_url: str | None) -> LaunchSpec:
    deployment = Deployment("openai", "some-model", "-", EngineTerms(base_url=base_url), Options(), "openai")
    return ENGINE.launch(deployment, Place(None, None, "127.0.0.1", 0, Path()))


def test_it_attaches_to_the_url_with_the_named_model() -> None:
    assert launch("http://127.0.0.1:8000/v1/") == AttachSpec("http://127.0.0.1:8000/v1", "some-model")


def test_without_a_url_the_message_names_the_key_and_an_example() -> None:
    with pytest.raises(UserError, match=r"engine=openai needs engine\.base_url=URL .*http://127"):
        launch(None)


def test_a_url_without_a_scheme_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"engine\.base_url=127\.0\.0\.1:8000: must begin with http://"):
        launch("127.0.0.1:8000")


def test_it_needs_no_weights_and_no_installation() -> None:
    deployment = Deployment("openai", "some-model", "-", EngineTerms(), Options(), "openai")
    assert ENGINE.weights(deployment) is None
    assert ENGINE.install(None, "cuda") is None


def test_lengths_are_forced_only_where_asked() -> None:
    assert ENGINE.request_fields(TURN, Options()) == {}
    assert ENGINE.request_fields(TURN, Options(ignore_eos=True)) == {"ignore_eos": True, "min_tokens": 24}
