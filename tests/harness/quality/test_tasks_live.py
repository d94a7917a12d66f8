"""Tasks are loaded, asked and scored by lm-evaluation-harness itself, without a hub."""

from pathlib import Path

import pytest
from fake_http import chatting, fake_http
from progress_lines import KeptLines

from serving_bench.harness.errors import UserError
from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.install.provision import Tools
from serving_bench.harness.quality.items import basics
from serving_bench.harness.quality.tasks import TasksServer, ask_tasks, provide_tasks
from serving_bench.harness.store.named_files import TASKS_FILE
from serving_bench.harness.store.quality_table import read_items

pytestmark = pytest.mark.engines
TOOLS = Tools(cache_dir(), KeptLines())
OWN_TASK = """\
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "What is the capital of {{{{country}}}}?"
doc_to_target: capital
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def test_each_answer_of_bench_basics_has_its_score(tmp_path: Path) -> None:
    known = {each.prompt: each.expected for each in basics()}
    wrong = {each.prompt: each.id for each in basics() if each.check in ("json", "pattern")}
    failing = basics()[3].prompt

    def answer(prompt: str) -> str | int:
        return 500 if prompt == failing else "no" if prompt in wrong else known[prompt]

    with fake_http(chatting(answer)) as server:
        tasks = provide_tasks(["bench-basics"], TOOLS)
        asked = TasksServer(server.base_url, "tiny", {"top_k": 1}, 4, key="sesame")
        said = ask_tasks(tasks, asked, 300, tmp_path)
    assert said == 'bench-basics: 1 of 300 items without a score (HTTP 500: {"error": "refused"})'
    rows = read_items(tmp_path / TASKS_FILE)
    assert [each.item for each in rows] == [each.id for each in basics()]
    scores = {each.item: each.score for each in rows}
    assert scores.pop(basics()[3].id) is None
    assert {item for item, score in scores.items() if score == 0} == {*wrong.values()}
    assert set(scores.values()) == {0.0, 1.0}
    assert len({each.prompt_sha256 for each in rows}) == 300
    assert {each.value["max_tokens"] for each in server.requests} == {48}


def test_a_task_of_the_users_own_is_scored_by_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data, task = tmp_path / "capitals.jsonl", tmp_path / "capitals.yaml"
    pairs = (("France", "Paris"), ("Peru", "Lima"))
    data.write_text("".join(f'{{"country": "{a}", "capital": "{b}"}}\n' for a, b in pairs))
    task.write_text(OWN_TASK.format(data=data))
    with fake_http(chatting(lambda prompt: "Lima")) as server:
        tasks = provide_tasks([str(task)], TOOLS)
        assert ask_tasks(tasks, TasksServer(server.base_url, "tiny", {}, 2), 60, tmp_path) is None
    rows = read_items(tmp_path / TASKS_FILE)
    assert [(each.item, each.score) for each in rows] == [("capitals/0", 0.0), ("capitals/1", 1.0)]
    assert {each.value["messages"][0]["content"] for each in server.requests} == {
        "What is the capital of France?", "What is the capital of Peru?",
    }  # fmt: skip


def test_a_task_without_items_is_said_before_a_run(tmp_path: Path) -> None:
    data, task = tmp_path / "none.jsonl", tmp_path / "none.yaml"
    data.touch()
    task.write_text(OWN_TASK.format(data=data))
    with pytest.raises(UserError, match=r"^quality\.tasks=.*/none\.yaml: it has no items$"):
        provide_tasks([str(task)], TOOLS)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gsm8k_coot", r"quality\.tasks=gsm8k_coot: no such task of lm_eval; did you mean gsm8k_cot"),
        ("gsm8k_cot", r"quality\.tasks=gsm8k_cot: its data is not in the hub's cache on this machine"),
    ],
)
def test_what_cannot_be_asked_is_said_before_a_run(name: str, why: str, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=why):
        provide_tasks([name], TOOLS)
