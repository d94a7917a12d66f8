"""What engines say of a text's tokens and their probabilities: from answers of real servers, and bad ones.

Recorded with gemma3-270m in bf16: vLLM 0.32.0, transformers 5.24.0, SGLang 0.5.23 (on CPUs). TGI
3.3.6-dev0: its Python shard with a model of random weights, and its llama.cpp backend.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from asking import measured
from places import TESTS

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Token
from serving_bench.harness.quality.texts import Items

TEXT = "The capital of France is"
IDS = ["2", "818", "5279", "529", "7001", "563"]
CHAT = "Count from one to ten."
CHAT_IDS = "2 105 2364 107 4377 699 886 531 3595 236761 106 107 105 4368 107".split()  # noqa: SIM905
NAMING = ("vllm", "sglang", "transformers")
TELLING = (*NAMING, "tgi")


def recorded(engine: str, name: str = "given_text") -> Any:
    return json.loads((TESTS / "data" / engine / f"{name}.json").read_text())


def given(name: str, said: object, most: int = 3) -> Sequence[Token] | str:
    """The tokens of a text that a server answers so, or why there are none."""
    engine = replace(ENGINES[name], logprobs=most)
    rows, record = measured(lambda path, body: said, engine, Items((), (TEXT,)), in_flight=1)
    return str(record.missing["text"]) if not rows else rows[0].tokens


@pytest.mark.parametrize("engine", NAMING)
def test_each_token_of_a_text_has_the_likeliest_of_its_place(engine: str) -> None:
    first, *others = given(engine, recorded(engine))
    assert first == Token("2")
    assert [first.name, *(token.name for token in others)] == IDS
    assert [len(token.top) for token in others] == [3] * 5
    # The third and the last are among the likeliest, the others are not.
    assert others[2].top["529"] == others[2].logprob == max(others[2].top.values())
    assert [token.name in token.top for token in others] == [False, False, True, False, True]
    # The same weights, computed by each in bf16.
    assert [token.logprob for token in others] == pytest.approx([-2.9, -9.6, -0.87, -5.1, -1.3], rel=0.03)


def test_tgi_tells_the_probability_of_each_token_alone() -> None:
    tokens = given("tgi", recorded("tgi"), 5)
    assert [token.name for token in tokens] == IDS
    assert [token.logprob for token in tokens] == [None, -12.5625, -12.625, -13.0, -12.6875, -12.5625]
    assert all(not token.top for token in tokens)


def test_tgi_with_its_llama_cpp_backend_tells_nothing_of_a_text() -> None:
    assert (
        given("tgi", recorded("tgi", "given_text_llama_cpp")) == "POST /generate gives no tokens for the text"
    )


@pytest.mark.parametrize("name", TELLING)
def test_a_chat_is_told_as_its_tokens(name: str) -> None:
    asked: list[tuple[str, Any]] = []

    def reply(path: str, body: dict[str, Any]) -> object:
        asked.append((path, body))
        return recorded(name, "chat_tokens")

    engine = replace(ENGINES[name], logprobs=0, given_text=None)
    rows, _ = measured(reply, engine, Items((CHAT,), ()), in_flight=1)
    assert [token.name for token in rows[0].tokens] == CHAT_IDS
    assert asked[0][0] == ("/chat_tokenize" if name == "tgi" else "/tokenize")
    assert asked[0][1]["messages"] == [{"role": "user", "content": CHAT}]
    assert asked[0][1]["model"] == "tiny"


@pytest.mark.parametrize(
    ("engine", "most"), [("reference", 0), ("tgi", 5), ("openai", 20), ("vllm", 20), ("sglang", 20)]
)
def test_how_many_tokens_a_chat_names_at_most(engine: str, most: int) -> None:
    assert ENGINES[engine].logprobs == most


@pytest.mark.parametrize("engine", ["openai", "reference"])
def test_a_server_whose_api_does_not_tell_is_not_asked(engine: str) -> None:
    assert (ENGINES[engine].given_text, ENGINES[engine].prompt_tokens) == (None, None)


# As they are written in the recorded answers: a token's probability, and that of one of the likeliest.
NUMBERS = {
    "vllm": ("-9.68598747253418", "-2.6429741382598877"),
    "sglang": ("-9.705812454223633", "-2.6632232666015625"),
    "transformers": ("-9.585848808288574", "-2.629460096359253"),
    "tgi": ("-12.6875",),
}


@pytest.mark.parametrize(("value", "why"), [("NaN", "cannot read"), ("0.5", "it gives 0.5 as the log")])
@pytest.mark.parametrize("engine", TELLING)
def test_a_number_that_is_no_log_probability_is_refused(engine: str, value: str, why: str) -> None:
    for number in NUMBERS[engine]:
        assert why in str(given(engine, json.dumps(recorded(engine)).replace(number, value).encode()))


@pytest.mark.parametrize("engine", NAMING)
def test_fewer_likeliest_tokens_than_asked_for_are_refused(engine: str) -> None:
    assert str(given(engine, recorded(engine), 4)).endswith(" names 3 tokens at position 2, not 4")


def changed(engine: str, value: object) -> Any:
    """The recorded answer, with something else instead of its list of probabilities."""
    answer = recorded(engine)
    holder, name = {
        "vllm": lambda: (answer["choices"][0], "prompt_logprobs"),
        "sglang": lambda: (answer["meta_info"], "input_token_logprobs"),
        "transformers": lambda: (answer, "logprobs"),
        "tgi": lambda: (answer["details"], "prefill"),
    }[engine]()
    holder[name] = value(holder[name]) if callable(value) else value
    return answer


@pytest.mark.parametrize("engine", TELLING)
@pytest.mark.parametrize(
    "said", [b"<html>Bad gateway</html>", [], None, {"error": {"message": "no"}}, "ignored", "words"]
)
def test_an_answer_of_another_form_is_one_line(engine: str, said: object) -> None:
    if said in ("ignored", "words"):
        said = changed(engine, None if said == "ignored" else TEXT.split())
    why = given(engine, said)
    assert isinstance(why, str)
    assert "cannot read" in why or "answered 500" in why
    assert "\n" not in why


@pytest.mark.parametrize("engine", NAMING)
def test_a_cut_list_of_probabilities_is_refused(engine: str) -> None:
    answer = changed(engine, lambda places: places[:-1])
    if engine == "sglang":  # whose list is that of the tokens
        answer = recorded(engine)
        answer["meta_info"]["input_top_logprobs"].pop()
    assert str(given(engine, answer)).endswith("gives no probability for token 6 of 6")


def test_tokens_named_by_their_text_are_refused() -> None:
    answer = recorded("vllm")
    place = answer["choices"][0]["prompt_logprobs"][1]
    answer["choices"][0]["prompt_logprobs"][1] = {each["decoded_token"]: each for each in place.values()}
    assert given("vllm", answer) == "POST /v1/completions gives no probability for token 2 of 6"
