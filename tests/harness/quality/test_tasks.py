"""Tasks are asked in time, each request for itself, and what is missing is said."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from echoes import ECHOES, KEY
from fake_http import Answer, chatting, fake_http
from shell_script import shell_script
from weights_steps import Workshop

from serving_bench.engines.inside.ask_tasks import MAX_TOKENS, NOT_SCORED, Chat, answered, finite
from serving_bench.harness.contracts import Item, secrets_in
from serving_bench.harness.errors import UserError
from serving_bench.harness.quality.tasks import (
    Tasks,
    TasksServer,
    ask_tasks,
    check_tasks,
    provide_tasks,
    unanswered,
)
from serving_bench.harness.store.named_files import TASKS_FILE
from serving_bench.harness.store.quality_table import read_items


def request(number: int, text: str, **generation: Any) -> SimpleNamespace:
    """What lm_eval hands to a model for an item."""
    messages = json.dumps([{"role": "user", "content": text}])
    return SimpleNamespace(args=(messages, generation), task_name="basics", doc_id=number)


def test_answers_come_in_the_order_of_the_items() -> None:
    with fake_http(chatting(lambda text: text.upper())) as server:
        chat = Chat(server.base_url, "tiny", {"top_k": 1}, 4, 60)
        words = ["a", "b", "c", "d", "e", "f"]
        assert chat.generate_until([request(*each) for each in enumerate(words)]) == list("ABCDEF")
    assert chat.errors == {}
    assert {each.path for each in server.requests} == {"/v1/chat/completions"}


def test_what_a_task_says_of_generation_is_sent_as_lm_evals_own_client_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BENCH_TASKS_KEY", "sesame")
    generation = {"until": ["a", "b", "c", "d", "e"], "max_gen_toks": 7, "do_sample": False, "top_p": 0.9}
    with fake_http(chatting(lambda text: "yes")) as server:
        chat = Chat(server.base_url, "tiny", {"top_k": 1}, 1, 60)
        chat.generate_until([request(0, "Well?", **generation), request(1, "Well?", until=[])])
    first, second = (each.value for each in server.requests)
    assert first["stop"] == ["a", "b", "c", "d"]
    assert [first[name] for name in ("max_tokens", "temperature", "top_p", "top_k")] == [7, 0, 0.9, 1]
    assert server.requests[0].key == "Bearer sesame"
    assert not {"until", "do_sample", "max_gen_toks"} & set(first)
    assert "stop" not in second
    assert second["max_tokens"] == MAX_TOKENS


def test_a_request_that_fails_costs_its_own_answer_alone() -> None:
    with fake_http(chatting(lambda text: 500 if text == "bad" else "fine")) as server:
        chat = Chat(server.base_url, "tiny", {}, 2, 60)
        assert chat.generate_until([request(0, "good"), request(1, "bad"), request(2, "good")]) == [
            "fine", "", "fine",
        ]  # fmt: skip
    assert chat.errors == {("basics", 1): 'HTTP 500: {"error": "refused"}'}


def test_no_item_is_asked_after_the_limit() -> None:
    with fake_http(chatting(lambda text: None)) as server:
        chat = Chat(server.base_url, "tiny", {}, 1, 0.3)
        assert chat.generate_until([request(0, "slow"), request(1, "late")]) == ["", ""]
    why = "no answer within the limit of 0.3 s"
    assert chat.errors == {("basics", 0): why, ("basics", 1): why}
    assert "late" not in {each.value["messages"][0]["content"] for each in server.requests}


@pytest.mark.parametrize("room", [0, 250])
def test_a_key_that_the_server_repeats_is_kept_nowhere(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Not even its beginning, where a long refusal is cut."""
    key = 'sesame"open' * 6
    monkeypatch.setenv("BENCH_TASKS_KEY", key)
    refusal = f"{'x' * room}Incorrect API key: {key}"
    with fake_http(chatting(lambda text: 401, refusal)) as server:
        chat = Chat(server.base_url, "tiny", {}, 1, 60)
        chat.generate_until([request(0, "Well?")])
    (why,) = chat.errors.values()
    assert why.startswith('HTTP 401: {"error": "')
    assert "API key: ***" in why
    assert "sesame" not in why


def test_a_row_is_kept_without_the_key_as_soon_as_its_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TASKS_KEY", "sesame")
    rows, is_kept = [], threading.Event()

    def answer(text: str) -> str:
        if text == "last":  # comes only once the first one's row is there
            assert is_kept.wait(30)
        return "4, says sesame"

    def keep(asked: Any, said: str) -> None:
        rows.append(answered("basics", asked, said, None, is_own=True))
        is_kept.set()

    with fake_http(chatting(answer)) as server:
        chat = Chat(server.base_url, "tiny", {}, 2, 60)
        chat.keep = keep
        items = [request(0, "last"), request(1, "first")]
        for each in items:
            each.doc = {"id": each.args[0], "check": "number", "expected": "4", "others": []}
        assert chat.generate_until(items) == ["4, says sesame"] * 2
    assert [row["item"] for row in rows] == [items[1].args[0], items[0].args[0]]
    assert {(row["answer"], row["score"], row["error"]) for row in rows} == {("4, says ***", 1.0, None)}
    assert answered("basics", items[0], "4", None, is_own=False)["error"] == NOT_SCORED


def test_half_a_character_in_an_answer_is_replaced() -> None:
    with fake_http(chatting(lambda text: "4 \ud83d")) as server:
        assert Chat(server.base_url, "tiny", {}, 1, 60).generate_until([request(0, "Well?")]) == ["4 ?"]


def test_an_answer_that_breaks_off_costs_itself_alone() -> None:
    cut = Answer([b"{"], headers={"Content-Length": "99"}, closes=True)
    with fake_http(cut) as server:
        chat = Chat(server.base_url, "tiny", {}, 1, 60)
        assert chat.generate_until([request(0, "Well?")]) == [""]
    assert "IncompleteRead" in chat.errors["basics", 0]


@pytest.mark.parametrize(
    ("score", "number"),
    [(True, 1.0), (0, 0.0), (0.25, 0.25), (float("nan"), None), (("said", "meant"), None), ("said", None)],
)
def test_a_score_of_one_item_is_a_number(score: Any, number: float | None) -> None:
    assert finite(score) == number


def test_each_task_has_its_share_of_the_time() -> None:
    with fake_http(chatting(lambda text: None if text == "slow" else "quick")) as server:
        chat = Chat(server.base_url, "tiny", {}, 1, 60)
        chat.tasks_left = 200
        assert chat.generate_until([request(0, "slow")]) == [""]
        chat.tasks_left = 1
        assert chat.generate_until([request(1, "quick")]) == ["quick"]
    assert chat.errors == {("basics", 0): "no answer within the limit of 0.3 s"}


def test_a_server_that_is_gone_is_said_for_each_item() -> None:
    with fake_http(chatting(lambda text: "")) as server:
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
    python = shell_script(tmp_path / "python", "echo out of memory >&2\nexit 3")
    said = ask_tasks(Tasks(python, {"ifeval": None}), TasksServer("http://x/v1", "tiny", {}, 1), 1, tmp_path)
    assert said == "lm_eval exited with code 3: out of memory"


def test_a_log_of_any_size_is_masked_in_place(tmp_path: Path) -> None:
    lines = f"echo a sesame >&2\ntruncate -s 1T '{tmp_path}/tasks.log'\nexit 3"
    python = shell_script(tmp_path / "python", lines)
    server = TasksServer("http://x/v1", "tiny", {}, 1, key="sesame")
    assert "lm_eval exited with code 3" in (ask_tasks(Tasks(python, {"t": None}), server, 1, tmp_path) or "")
    assert (tmp_path / "tasks.log").read_bytes().rstrip(b"\0") == b"a ******\n"


ROW = {"task": "t", "item": "0", "score": None, "answer": "4", "prompt_sha256": "a", "error": "not scored"}


def program(path: Path, lines: list[str], then: str) -> Tasks:
    """A python that writes these lines to the file that its job names, and then goes on."""
    (path / "lines").write_bytes("\n".join(lines).encode())
    lines = f'cat "{path}/lines" > "$(dirname "$3")/tasks.jsonl"\n{then}'
    return Tasks(shell_script(path / "python", lines), {"t": None})


SERVER = TasksServer("http://127.0.0.1:9/v1", "tiny", {}, 1)


def lines_of(*rows: dict[str, Any], items: int) -> list[str]:
    head = {"task": "t", "items": items}
    return list(map(json.dumps, (head, *({"task": "t", "row": row} for row in rows))))


def test_a_torn_last_line_is_left_out_and_others_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    scored, other = {**ROW, "score": 1.0, "error": None}, {**ROW, "item": "1", "score": 0.0, "error": None}
    lines = lines_of(ROW, other, scored, items=4)
    lines += ['{"task": "t", "row": {"answer": "\\ud83d"}}', '{"task": "t", "ro']
    said = ask_tasks(program(tmp_path, lines, "exit 0"), SERVER, 1, tmp_path)
    assert said
    assert said.startswith("1 of 5 lines of lm_eval cannot be read (")
    assert said.endswith("; t: 2 of 4 items not asked")
    assert read_items(tmp_path / TASKS_FILE) == [Item(**other), Item(**scored)]
    assert not (tmp_path / "tasks.jsonl").exists()


def test_the_key_in_any_form_and_other_secrets_reach_neither_rows_nor_log_nor_program(tmp_path, monkeypatch):
    monkeypatch.setenv("ANOTHER_API_KEY", "another of mine")
    (tmp_path / "said").write_text("\n".join(echo(KEY) for echo in ECHOES.values()))
    rows = [{**ROW, "item": way, "answer": echo(KEY), "error": echo(KEY)} for way, echo in ECHOES.items()]
    then = f'env > "{tmp_path}/got"; cat "{tmp_path}/said" >&2; exit 3'
    tasks = program(tmp_path, [*lines_of(*rows, items=len(rows)), ""], then)
    out = tmp_path / "out"
    out.mkdir()
    said = ask_tasks(tasks, replace(SERVER, key=KEY), 1, out)
    assert "***" in str(said)
    kept = [str(said), str(read_items(out / TASKS_FILE)), (out / "tasks.log").read_text()]
    assert not [text for text in kept if [*secrets_in(text.encode(), {"KEY": KEY})]]
    got = (tmp_path / "got").read_text()
    assert f"BENCH_TASKS_KEY={KEY}" in got
    assert "another of mine" not in got


def test_what_was_answered_until_an_interrupt_is_kept(tmp_path: Path) -> None:
    tasks = program(tmp_path, [*lines_of(ROW, items=2), ""], f'touch "{tmp_path}/written"; sleep 60')

    def interrupt() -> None:
        while not (tmp_path / "written").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # A process that others started in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            ask_tasks(tasks, SERVER, 60, tmp_path)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_items(tmp_path / TASKS_FILE) == [Item(**ROW)]
    assert not (tmp_path / "tasks.jsonl").exists()


def test_a_task_that_cannot_be_asked_is_refused_before_a_run(tmp_path: Path) -> None:
    said = list[str]()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    with pytest.raises(UserError, match=r"^quality\.tasks=ifeval: lm_eval raised ModuleNotFoundError"):
        provide_tasks(["bench-basics", "ifeval"], Workshop(lambda spec: tmp_path, said.append))
    assert said == ["quality.tasks=ifeval: not bench's own (bench-basics, gsm8k, mmlu), so lm_eval is asked"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/nope.yaml", "there is no such file; give a task's YAML, or a name"),
        ("nope.yml", "there is no such file; give"),
        ("GSM-8K", "no such task; did you mean gsm8k? choose from bench-basics, gsm8k, mmlu"),
        ("bench_basics", "no such task; did you mean bench-basics? choose from"),
        ("bench-maths", "no such task; did you mean bench-basics? choose from"),
    ],
)
def test_a_task_that_cannot_be_is_refused_before_anything_is_installed(name: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        check_tasks(["bench-basics", name])
    assert str(error.value).startswith(f"quality.tasks={name}: {why}")


def test_what_lm_eval_may_have_is_its_to_know(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").touch()
    near_to_own = ["cmmlu", "kmmlu", "mmmlu", "gsm8k_cot", "mmlu_pro", "nonsense"]
    check_tasks(["bench-basics", "gsm8k", "mmlu", str(tmp_path / "own.yaml"), *near_to_own])


def test_items_without_a_score_are_counted_by_reason() -> None:
    rows = [
        Item("basics", "0", 1.0, "yes", "a"),
        Item("basics", "1", None, "", "b", error="HTTP 500"),
        Item("basics", "2", None, "", "c", error="HTTP 500"),
    ]
    assert unanswered(rows) == ["basics: 2 of 3 items without a score (HTTP 500)"]
