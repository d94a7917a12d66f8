"""Anthropic's Messages API as a real server of it speaks: llama.cpp's own, beside its OpenAI API."""

import pytest
from llama_cpp_serving import Live, serving

from serving_bench.harness.contracts import Message, Turn
from serving_bench.harness.load.answer import APIS
from serving_bench.harness.load.answer.api import Api
from serving_bench.harness.load.answer.chat import Decoded
from serving_bench.harness.servers import probe

ASKED = (
    Message("system", "You are a geographer. Answer in plain words."),
    Message("user", "Name three rivers and the seas that they flow into."),
)
ANSWERED = (
    *ASKED,
    Message("assistant", "The Rhine, the Danube and the Rhone."),
    Message("user", "Which is the longest?"),
)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with serving("xllamacpp", tmp_path_factory.mktemp("server")) as server:
        yield server


def asked(live: Live, api: Api, turn: Turn) -> Decoded:
    """What came over an API, both greedy."""
    body = api.request(live.spec.served_model, turn, turn.messages, {"temperature": 0})
    url = api.base_of(f"http://127.0.0.1:{live.port}/v1") + api.path_of(live.spec.served_model)
    answer = probe.request("POST", url, timeout_s=120, body=body, api=api)
    assert answer.status == 200, answer.text
    return answer.decoded(api)


@pytest.mark.parametrize("messages", [ASKED, ANSWERED])
def test_both_apis_of_one_server_tell_the_same_of_an_answer(live, messages):
    turn = Turn(messages, max_tokens=24)
    ours, theirs = asked(live, APIS["anthropic"], turn), asked(live, APIS["openai"], turn)
    assert ours.text == theirs.text != ""
    assert (ours.input_tokens, ours.output_tokens) == (theirs.input_tokens, theirs.output_tokens)
    assert ours.finish_reason == theirs.finish_reason
    assert len(ours.chunk_ns) == len(theirs.chunk_ns) > 1
    assert (ours.server_error, ours.malformed) == (None, None)
