"""The engine that attaches to a running server: what it asks for, and what it refuses."""

from pathlib import Path

import pytest

from serving_bench.engines.openai.engine import ENGINE, Options
from serving_bench.harness.contracts import Deployment, EngineTerms, Message, Place, Turn
from serving_bench.harness.errors import UserError

TURN = Turn(messages=(Message("user", "hello"),), max_tokens=24)


def test_without_a_url_the_message_names_the_key_and_an_example() -> None:
    deployment = Deployment("openai", "some-model", "-", EngineTerms(), Options(), "openai")
    with pytest.raises(UserError, match=r"engine=openai needs engine\.base_url=URL .*http://127"):
        ENGINE.launch(deployment, Place(None, None, "127.0.0.1", 0, Path()))


def test_it_needs_no_weights_and_no_installation() -> None:
    deployment = Deployment("openai", "some-model", "-", EngineTerms(), Options(), "openai")
    assert ENGINE.weights(deployment) is None
    assert ENGINE.install(None, "cuda") is None


def test_lengths_are_forced_only_where_asked() -> None:
    assert ENGINE.request_fields(TURN, Options(), "matched") == {}
    assert ENGINE.request_fields(TURN, Options(ignore_eos=True), "matched") == {
        "ignore_eos": True,
        "min_tokens": 24,
    }


def test_a_version_alone_makes_no_ollama() -> None:
    version = {"/api/version": {"version": "0.6.5"}}
    assert ENGINE.said("", version).terms == {}
    named = ENGINE.said("", {**version, "/api/ps": {"models": []}}).terms
    assert named == {"engine_version": "Ollama's API 0.6.5"}
