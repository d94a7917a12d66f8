"""Play your own prompts: one conversation per line of a JSON Lines file.

A line is {"messages": [{"role": "user", "content": "..."}, ...]} or {"prompt": "..."}, with an optional
"max_tokens" and "think_time_s". Each message of a user ends a turn; an assistant's message between two turns
is the scripted answer to the first.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from harness.contracts import Conversation, Message, Scenario, ScenarioOptions, Turn
from harness.errors import UserError


@dataclass(frozen=True)
class FileOptions(ScenarioOptions):
    """`path`: the JSON Lines file. `output_tokens`: max_tokens of lines that give none. `shuffle`: play the
    lines in an order drawn from the seed instead of the file's; they repeat without end either way."""

    path: str | None = None
    output_tokens: int = 128
    think_time_s: float = 0.0
    shuffle: bool = False


def conversations(options: FileOptions, rng: Random) -> Iterator[Conversation]:
    """Yield the file's conversations, over and over. Raises UserError naming file and line."""
    if options.output_tokens < 1:
        raise UserError(f"scenario.output_tokens={options.output_tokens}: must be 1 or more")
    read = read_conversations(options)
    while True:
        order = list(read)
        if options.shuffle:
            rng.shuffle(order)
        yield from order


def read_conversations(options: FileOptions) -> list[Conversation]:
    """Return all conversations of the file, in its order; at least one."""
    if options.path is None:
        raise UserError("scenario=file needs scenario.path=FILE, a JSON Lines file of conversations")
    path = Path(options.path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"scenario.path={options.path}: cannot be read ({cause})") from error
    found = [
        _conversation(line, f"scenario.path={options.path}, line {number}", options)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise UserError(f"scenario.path={options.path}: has no conversation")
    return found


def _conversation(line: str, where: str, options: FileOptions) -> Conversation:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object with messages or prompt")
    if unknown := set(record) - {"messages", "prompt", "max_tokens", "think_time_s"}:
        known = "there are messages, prompt, max_tokens, think_time_s"
        raise UserError(f"{where}: {min(unknown)}: no such field; {known}")
    if "messages" in record and "prompt" in record:
        raise UserError(f"{where}: give messages or prompt, not both")
    max_tokens = _number(record, "max_tokens", options.output_tokens, int, where)
    if max_tokens < 1:
        raise UserError(f"{where}: max_tokens={max_tokens}: must be 1 or more")
    think_time_s = _number(record, "think_time_s", options.think_time_s, float, where)
    turns = _turns(_messages(record, where), max_tokens, think_time_s)
    if not turns:
        raise UserError(f"{where}: has no message of a user")
    return Conversation(tuple(turns))


def _number(record: dict[str, Any], key: str, default: float, kind: type, where: str) -> Any:
    value = record.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (kind is int and value != int(value))
    ):
        raise UserError(f"{where}: {key}={value!r}: must be a {'whole ' if kind is int else ''}number")
    return kind(value)


def _messages(record: dict[str, Any], where: str) -> list[Message]:
    if isinstance(record.get("prompt"), str):
        return [Message("user", record["prompt"])]
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: must have messages (a list) or prompt (text)")
    made = []
    for message in messages:
        match message:
            case {"role": "system" | "user" | "assistant" | "tool" as role, "content": str(content)}:
                made.append(Message(role, content))
            case _:
                needed = "a role (system, user, assistant, tool) and content (text)"
                raise UserError(f"{where}: each message needs {needed}")
    return made


def _turns(messages: list[Message], max_tokens: int, think_time_s: float) -> list[Turn]:
    """Split at each message of a user. An assistant's message is the answer to the turn before it."""
    turns: list[Turn] = []
    pending: list[Message] = []
    for message in messages:
        if message.role == "assistant" and turns and not pending:
            turns[-1] = replace(turns[-1], answer=message.content)
            continue
        pending.append(message)
        if message.role == "user":
            turns.append(Turn(tuple(pending), max_tokens, think_time_s if turns else 0.0))
            pending = []
    return turns


SCENARIO = Scenario(
    "file",
    "your own conversations from a JSON Lines file (scenario.path=chats.jsonl)",
    FileOptions,
    conversations,
)
