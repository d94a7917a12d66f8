"""Ask a chat server the items of tasks, and score its answers with lm-evaluation-harness (`python -P`).

The argument is a JSON file: `tasks` (name -> the arguments of own_task; null: a task of lm_eval's), `chat`
(the arguments of Chat; null: only load the tasks) and `rows`, the file to write. It gets JSON lines: {task,
items} with the number of items; {task, row} when an item is answered and again when lm_eval has scored it
(Item in harness/contracts/quality.py); {task, failed} with the reason why a task cannot be asked. The
server's key comes from BENCH_TASKS_KEY, since every user can see arguments; no line contains it.
"""

import difflib
import http.client
import json
import math
import os
import re
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from hashlib import sha256
from typing import Any, TextIO

MAX_TOKENS = 256  # for a task that sets no number; the default of lm_eval's own client
MOST_STOPS = 4
KEY_VARIABLE = "BENCH_TASKS_KEY"
NOT_SCORED = "answered, but cut off before lm_eval scored the task"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
# "A or B" chooses none of them.
_OPEN_CHOICE = re.compile(r"\b(?:[A-J], )*[A-J],? or [A-J]\b")
_ENDED = r"(?=[*_]*\s*(?:[).:]|$))"


class Chat:
    """A model in lm_eval's sense: a chat server, asked within a time limit.

    lm_eval's own client (local-chat-completions) sends the same fields, but has no limit, and loses all
    answers if one request fails. `limit_s` is for all tasks: each of the `tasks_left` gets an equal share of
    the rest. `errors`: by task and item, why there is no answer. `keep` is called with each request and its
    answer.
    """

    rank, world_size, tokenizer_name = 0, 1, ""

    def __init__(
        self, base_url: str, model: str, fields: dict[str, Any], in_flight: int, limit_s: float
    ) -> None:
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model, self.fields, self.in_flight = model, fields, in_flight
        self.left_s, self.tasks_left = limit_s, 1
        self.share_s = self.ends_s = 0.0
        self.errors: dict[tuple[str, int], str] = {}
        self.keep: Callable[[Any, str], None] = lambda request, answer: None

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return json.dumps(messages, ensure_ascii=False)

    def generate_until(self, requests: list[Any]) -> list[str]:
        began_s, self.share_s = time.monotonic(), self.left_s / self.tasks_left
        self.ends_s = began_s + self.share_s
        with ThreadPoolExecutor(self.in_flight) as pool:
            futures = {pool.submit(self._answer, request): request for request in requests}
            for done in as_completed(futures):
                self.keep(futures[done], done.result())
        self.left_s = max(0.0, self.left_s - (time.monotonic() - began_s))
        return [each.result() for each in futures]

    def _answer(self, request: Any) -> str:
        left_s = self.ends_s - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            return self._ask(*request.args, timeout_s=left_s)
        except TimeoutError:
            why = f"no answer within the limit of {self.share_s:.3g} s"
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}: {_beginning(error)}"
        except urllib.error.URLError as error:
            why = str(error.reason)
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
        self.errors[request.task_name, request.doc_id] = without_key(why)
        return ""

    def _ask(self, messages: str, generation: dict[str, Any], *, timeout_s: float) -> str:
        given = {key: value for key, value in generation.items() if key != "do_sample"}
        until = given.pop("until", None) or []
        most = given.pop("max_gen_toks", MAX_TOKENS)
        body = {
            "model": self.model,
            "messages": json.loads(messages),
            "max_tokens": given.pop("max_tokens", most),
            "temperature": given.pop("temperature", 0),
            **self.fields,
            **given,
        }
        if stop := [until] if isinstance(until, str) else until[:MOST_STOPS]:
            body["stop"] = stop
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        call = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        # Without a proxy, as the load.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(call, timeout=timeout_s) as response:
            answer = json.load(response)["choices"][0]["message"]["content"] or ""
            # Replace lone surrogates, which cannot be written as UTF-8.
            return str.encode(answer, errors="replace").decode()


def _beginning(error: urllib.error.HTTPError) -> str:
    """Return the first 300 characters of a refusal. The key is removed before the cut, which may split it."""
    body = b""
    with suppress(OSError, http.client.HTTPException):
        body = error.read(65_536)
    return without_key(body.decode(errors="replace"))[:300]


def without_key(text: str) -> str:
    """Return a text without the server's key, as plain text and as JSON writes it."""
    if key := os.environ.get(KEY_VARIABLE):
        text = text.replace(key, "***").replace(json.dumps(key)[1:-1], "***")
    return text


def is_right(item: dict[str, Any], answer: str) -> bool:
    """Return whether an answer to an item of bench's own is right. Thoughts before it do not count."""
    text = answer.rpartition("</think>")[2].strip()
    expected = item["expected"]
    if item["check"] == "number":  # the last one counts: "7 + 5 = 12"
        numbers = [each.replace(",", "") for each in _NUMBER.findall(text)]
        return bool(numbers) and float(numbers[-1]) == float(expected)
    if item["check"] == "letter":
        return chosen_letter(text, {expected, *item["others"]}) == expected
    if item["check"] == "named":  # the expected name, and none of the other names in the text
        return _has(text, expected) and not any(_has(text, each) for each in item["others"])
    if item["check"] == "json":
        try:
            return json.loads(re.sub(r"^```(?:json)?|```$", "", text)) == json.loads(expected)
        except ValueError:
            return False
    return re.fullmatch(expected, text) is not None  # "pattern"


def chosen_letter(text: str, letters: set[str]) -> str | None:
    """Return the letter that an answer chooses; None if it chooses none.

    It is the letter that the answer begins with, or that follows "answer is" or "answer:", unless a
    lower-case word follows it; else the last one before `)`, `.`, `:` or the end of a line, as in "A horse,
    so B."; else the last one that stands alone. Before a lower-case word other than `is`, A is an article and
    I a pronoun. "A or B" chooses none.
    """
    text = _OPEN_CHOICE.sub("", text)
    letter = rf"(?<![\w'])([{''.join(sorted(letters))}])(?![\w'’])"
    if first := re.search(rf"(?:\A|(?i:\banswer(?: is)?:?))[\s*_(\"]*{letter}(?! [a-z])", text):
        return first[1]
    alone = rf"{letter}(?!(?<=[AI]) (?!is\b)[a-z])"
    letters_named = re.findall(letter + _ENDED, text, re.MULTILINE) or re.findall(alone, text)
    return letters_named[-1] if letters_named else None


def _has(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


class RefusedError(Exception):
    """A task cannot be asked here; the text is a clause that says why."""


def load(name: str, definition: dict[str, Any] | None) -> dict[str, Any]:
    """Return the task of this name, or the tasks of a group, by their names. Raises RefusedError."""
    from lm_eval.tasks import TaskManager

    if definition is not None:
        # Indexing lm_eval's thousands of tasks would take seconds, and is not needed.
        return TaskManager(include_defaults=False).load([own_task(name, **definition)])["tasks"]
    manager = TaskManager()
    if name not in manager.all_tasks and not os.path.isfile(name):
        near = difflib.get_close_matches(name, manager.all_tasks, 3)
        raise RefusedError(
            "no such task of lm_eval" + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    try:
        tasks = manager.load([name])["tasks"]
    except ConnectionError as error:
        raise RefusedError("its data is not in the hub's cache on this machine; no hub is asked") from error
    except (StopIteration, IndexError) as error:  # lm_eval reads the first item right away
        raise RefusedError("it has no items") from error
    for task in tasks.values():
        if task.OUTPUT_TYPE != "generate_until":
            raise RefusedError(f"it is a {task.OUTPUT_TYPE} task; over a chat API only generate_until works")
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise RefusedError("it runs code that the model writes, or shows pictures; bench does neither")
    return tasks


def own_task(name: str, items: list[dict[str, Any]], most_tokens: int) -> dict[str, Any]:
    """Return a task for lm_eval with these items."""
    from datasets import Dataset

    return {
        "task": name,
        "custom_dataset": lambda **metadata: {"test": Dataset.from_list(items)},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{expected}}",
        "process_results": lambda item, answers: {"right": int(is_right(item, answers[0]))},
        "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {"until": [], "max_gen_toks": most_tokens},
    }


def write(rows: TextIO, name: str, **what: Any) -> None:
    """Write a line on a task into the results."""
    print(json.dumps({"task": name, **what}), file=rows, flush=True)


def ask(name: str, tasks: dict[str, Any], chat: Chat, rows: TextIO, *, is_own: bool) -> None:
    """Ask all items of a task or of a group's tasks, and write a scored row for each.

    A row is also written as soon as an item is answered. It has a score only if the task is bench's own.
    """
    from lm_eval.evaluator import evaluate

    def keep(request: Any, answer: str) -> None:
        error = chat.errors.get((request.task_name, request.doc_id))
        write(rows, name, row=answered(name, request, answer, error, is_own=is_own))

    chat.keep = keep
    results = evaluate(
        chat, {"tasks": tasks}, bootstrap_iters=0, apply_chat_template=True, fewshot_as_multiturn=True
    )
    for task, samples in results["samples"].items():
        # Each filter of a task has its own samples. The first filter and the first metric count.
        for sample in (each for each in samples if each["filter"] == samples[0]["filter"]):
            metric, error = sample["metrics"][0], chat.errors.get((task, sample["doc_id"]))
            score = None if error else finite(sample[metric])
            row = {
                "task": name,
                "item": sample["doc"]["id"] if is_own else f"{task}/{sample['doc_id']}",
                "score": score,
                "answer": without_key(sample["resps"][0][0]),
                "prompt_sha256": sample["prompt_hash"],
                "error": f"{metric} is not a score of one item" if error is None and score is None else error,
            }
            write(rows, name, row=row)


def answered(name: str, request: Any, answer: str, error: str | None, *, is_own: bool) -> dict[str, Any]:
    """Return the row of an item that was just answered or failed."""
    is_scored = is_own and error is None
    return {
        "task": name,
        "item": request.doc["id"] if is_own else f"{request.task_name}/{request.doc_id}",
        "score": float(is_right(request.doc, answer)) if is_scored else None,
        "answer": without_key(answer),
        "prompt_sha256": sha256(request.args[0].encode()).hexdigest(),  # as lm_eval makes it
        "error": None if is_scored else error or NOT_SCORED,
    }


def finite(score: Any) -> float | None:
    """Return a score as a number; None if it is not one, as for items that are scored together."""
    try:
        number = float(score)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def write_lines(name: str, definition: dict[str, Any] | None, chat: Chat | None, rows: TextIO) -> None:
    """Load and ask a task, and write the results line by line."""
    try:
        tasks = load(name, definition)
        write(rows, name, items=sum(len(task.eval_docs) for task in tasks.values()))
        if chat is not None:
            ask(name, tasks, chat, rows, is_own=definition is not None)
    except RefusedError as error:
        write(rows, name, failed=str(error))
    # Whatever the code of one task raises, the other tasks are asked.
    except Exception as error:
        traceback.print_exc()
        message = " ".join(without_key(str(error)).split())[:300]
        write(rows, name, failed=f"lm_eval raised {type(error).__name__}: {message}")


def main() -> None:
    # A task's data may be in the hub's local cache; the hub itself is not asked.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    chat = Chat(**job["chat"]) if job["chat"] else None
    with open(job["rows"], "w", encoding="utf-8") as rows:
        for number, (name, definition) in enumerate(job["tasks"].items()):
            if chat is not None:
                chat.tasks_left = len(job["tasks"]) - number
            write_lines(name, definition, chat, rows)


if __name__ == "__main__":
    main()
