"""Tasks are asked in time, each request for itself, and what is missing is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answering_server import answering_server

from engines.inside.ask_tasks import MAX_TOKENS, Chat, finite
from harness.contracts import Item
from harness.errors import UserError
from harness.quality.tasks import Tasks, TasksServer, ask_tasks, provide_tasks, unanswered


def request(number: int, text: str, **generation: Any) -> SimpleNamespace:
    """What lm_eval hands to a model for an item."""
    messages = json.dumps([{"role": "user", "content": text}])
    return SimpleNamespace(args=(messages, generation), task_name="basics", doc_id=number)


def test_answers_come_in_the_order_of_the_items() -> None:
    with answering_server(lambda text: text.upper()) as server:
        chat = Chat(server.base_url, "tiny", {"top_k": 1}, 4, 60)
        words = ["a", "b", "c", "d", "e", "f"]
        assert chat.generate_until([request(*each) for each in enumerate(words)]) == list("ABCDEF")
    assert chat.errors == {}
    assert {each["path"] for each in server.asked} == {"/v1/chat/completions"}


def test_what_a_task_says_of_generation_is_sent_as_lm_evals_own_client_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BENCH_TASKS_KEY", "sesame")
    generation = {"until": ["a", "b", "c", "d", "e"], "max_gen_toks": 7, "do_sample": False, "top_p": 0.9}
    with answering_server(lambda text: "yes") as server:
        chat = Chat(server.base_url, "tiny", {"top_k": 1}, 1, 60)
        chat.generate_until([request(0, "Well?", **generation), request(1, "Well?", until=[])])
    first, second = server.asked
    assert first["stop"] == ["a", "b", "c", "d"]
    assert [first[name] for name in ("max_tokens", "temperature", "top_p", "top_k")] == [7, 0, 0.9, 1]
    assert first["key"] == "Bearer sesame"
    assert not {"until", "do_sample", "max_gen_toks"} & set(first)
    assert "stop" not in second
    assert second["max_tokens"] == MAX_TOKENS


def test_a_request_that_fails_costs_its_own_answer_alone() -> None:
    with answering_server(lambda text: 500 if text == "bad" else "fine") as server:
        chat = Chat(server.base_url, "tiny", {}, 2, 60)
        assert chat.generate_until([request(0, "good"), request(1, "bad"), request(2, "good")]) == [
            "fine", "", "fine",
        ]  # fmt: skip
    assert chat.errors == {("basics", 1): 'HTTP 500: {"error": "refused"}'}


def test_no_item_is_asked_after_the_limit() -> None:
    with answering_server(lambda text: None) as server:
        chat = Chat(server.base_url, "tiny", {}, 1, 0.3)
        assert chat.generate_until([request(0, "slow"), request(1, "late")]) == ["", ""]
    why = "no answer within the limit of 0.3 s"
    assert chat.errors == {("basics", 0): why, ("basics", 1): why}
    assert "late" not in {each["messages"][0]["content"] for each in server.asked}


@pytest.mark.parametrize(
    ("score", "number"),
    [(True, 1.0), (0, 0.0), (0.25, 0.25), (float("nan"), None), (("said", "meant"), None), ("said", None)],
)
def test_a_score_of_one_item_is_a_number(score: Any, number: float | None) -> None:
    assert finite(score) == number


def test_each_task_has_its_share_of_the_time() -> None:
    with answering_server(lambda text: None if text == "slow" else "quick") as server:
        chat = Chat(server.base_url, "tiny", {}, 1, 60)
        chat.tasks_left = 200
        assert chat.generate_until([request(0, "slow")]) == [""]
        chat.tasks_left = 1
        assert chat.generate_until([request(1, "quick")]) == ["quick"]
    assert chat.errors == {("basics", 0): "no answer within the limit of 0.3 s"}


def test_a_server_that_is_gone_is_said_for_each_item() -> None:
    with answering_server(lambda text: "") as server:
        base_url = server.base_url
    chat = Chat(base_url, "tiny", {}, 2, 60)
    assert chat.generate_until([request(0, "a"), request(1, "b")]) == ["", ""]
    assert len(chat.errors) == 2
    assert "refused" in chat.errors["basics", 0]


def test_an_environment_without_lm_eval_is_said_and_leaves_its_log_alone(tmp_path: Path) -> None:
    tasks = Tasks(Path(sys.executable), {"ifeval": None})
    server = TasksServer("http://127.0.0.1:9/v1", "tiny", {}, 1, key="sesame")
    said = ask_tasks(tasks, server, 1, tmp_path)
    assert said == "ifeval: lm_eval raised ModuleNotFoundError: No module named 'lm_eval'"
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.log"]
    assert "sesame" not in (tmp_path / "tasks.log").read_text()


def test_a_program_that_dies_is_said_with_its_last_words(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    python.chmod(0o755)
    said = ask_tasks(Tasks(python, {"ifeval": None}), TasksServer("http://x/v1", "tiny", {}, 1), 1, tmp_path)
    assert said == "lm_eval exited with code 3: out of memory"


def test_a_task_that_cannot_be_asked_is_refused_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(UserError, match=r"^quality\.tasks=ifeval: lm_eval raised ModuleNotFoundError"):
        provide_tasks(["bench-basics", "ifeval"], lambda spec: tmp_path)


def test_items_without_a_score_are_counted_by_reason() -> None:
    rows = [
        Item("basics", "0", 1.0, "yes", "a"),
        Item("basics", "1", None, "", "b", error="HTTP 500"),
        Item("basics", "2", None, "", "c", error="HTTP 500"),
    ]
    assert unanswered(rows) == ["basics: 2 of 3 items without a score (HTTP 500)"]
