"""Play your own prompts: one conversation per line of a JSON Lines file, or ShareGPT's JSON.

A line is {"messages": [{"role": "user", "content": "..."}, ...]} or {"prompt": "..."}, with an optional
"max_tokens" and "think_time_s". ShareGPT's JSON is a list of {"conversations": [{"from": "human", "value":
"..."}, ...]}; its other fields are not used. Each user message ends a turn. An assistant message between two
turns is the scripted answer to the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from serving_bench.harness.contracts import COUNT, Conversation, Message, Range, Scenario, Turn, key
from serving_bench.harness.errors import UserError, expanded
from serving_bench.harness.foreign_files import json_of, read_text
from serving_bench.scenarios.lengths import THINK_TIME
from serving_bench.scenarios.text import TextOptions


@dataclass(frozen=True)
class FileOptions(TextOptions):
    """What is played of which file. Conversations repeat without end."""

    path: str | None = key(None, "The file with the conversations.", foreign="file")
    output_tokens: int | None = key(
        None,
        "The max_tokens of conversations that give none; null: the length of the file's answer, or 128.",
        COUNT,
        foreign="length",
    )
    think_time_s: float = key(0.0, THINK_TIME, Range(0))
    shuffle: bool = key(False, "Whether to play them in an order drawn from the seed.")


OUTPUT_TOKENS = 128

# Speakers in ShareGPT's files -> the role to send. Other models' names stand for the assistant.
_SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "assistant"), "assistant"),
    "system": "system",
}


def conversations(options: FileOptions, rng: Random) -> Iterator[Conversation]:
    """Yield the file's conversations over and over. Raises UserError with file and place."""
    read = read_conversations(options)
    while True:
        order = list(read)
        if options.shuffle:
            rng.shuffle(order)
        yield from order


def read_conversations(options: FileOptions) -> list[Conversation]:
    """Return all conversations of the file in its order, at least one."""
    if options.path is None:
        raise UserError(
            "scenario=file needs scenario.path=FILE, JSON Lines of conversations or ShareGPT's JSON"
        )
    where = f"scenario.path={options.path}"
    text = read_text(expanded("scenario.path", options.path), where)
    conversations = (_conversation(record, place, options) for place, record in _records(text, where))
    listed = [each for each in conversations if each]
    if not listed:
        raise UserError(f"{where}: has no conversation")
    return listed


def _records(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the place of each conversation and its JSON value."""
    if text.lstrip().startswith("["):
        for number, record in enumerate(json_of(text, where), 1):
            yield f"{where}, conversation {number}", record
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{where}, line {number}"
            yield place, json_of(line, place)


# The most tokens of an answer, or seconds of think time.
_MOST = 1e9


def _conversation(record: Any, where: str, options: FileOptions) -> Conversation | None:
    """Return a record's conversation; None if ShareGPT's has no user message, since some are empty."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object with messages, prompt or conversations")
    if "conversations" in record:
        turns = _turns(_spoken(record["conversations"], where), options)
        return Conversation(tuple(turns)) if turns else None
    if unknown := set(record) - {"messages", "prompt", "max_tokens", "think_time_s"}:
        fields = "there are messages, prompt, max_tokens, think_time_s"
        raise UserError(f"{where}: {min(unknown)}: no such field; {fields}")
    if "messages" in record and "prompt" in record:
        raise UserError(f"{where}: give messages or prompt, not both")
    max_tokens = options.output_tokens
    if "max_tokens" in record:
        max_tokens = _number(record, "max_tokens", int, where)
        if max_tokens < 1:
            raise UserError(f"{where}: max_tokens={max_tokens}: must be 1 or more")
    think_time_s = options.think_time_s
    if "think_time_s" in record:
        think_time_s = _number(record, "think_time_s", float, where)
    own_options = replace(options, output_tokens=max_tokens, think_time_s=think_time_s)
    turns = _turns(_messages(record, where), own_options)
    if not turns:
        raise UserError(f"{where}: has no user message")
    return Conversation(tuple(turns))


def _spoken(talk: Any, where: str) -> list[Message]:
    """Return the messages of ShareGPT's `conversations`, without answers before the first user message."""
    if not isinstance(talk, list):
        raise UserError(f"{where}: conversations must be a list")
    messages = list[Message]()
    for number, each in enumerate(talk, 1):
        match each:
            case {"from": str(speaker), "value": str(value)} if speaker in _SPEAKERS:
                role = _SPEAKERS[speaker]
                if role != "assistant" or any(message.role == "user" for message in messages):
                    messages.append(Message(role, value))
            case _:
                needed = f"from ({', '.join(_SPEAKERS)}) and value (text)"
                raise UserError(f"{where}, message {number}: needs {needed}")
    return messages


def _number(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = record[key]
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not abs(value) <= _MOST
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
    read_messages = []
    for message in messages:
        match message:
            case {"role": "system" | "user" | "assistant" | "tool" as role, "content": str(content)}:
                read_messages.append(Message(role, content))
            case _:
                needed = "a role (system, user, assistant, tool) and content (text)"
                raise UserError(f"{where}: each message needs {needed}")
    return read_messages


def _turns(messages: list[Message], options: FileOptions) -> list[Turn]:
    """Split messages into turns. A user message ends a turn; an assistant message answers the one before."""
    max_tokens, think_time_s = options.output_tokens, options.think_time_s
    turns: list[Turn] = []
    pending: list[Message] = []
    for message in messages:
        if message.role == "assistant" and turns and not pending:
            answered = max_tokens or options.tokens(message.content)
            turns[-1] = replace(turns[-1], answer=message.content, max_tokens=answered)
            continue
        pending.append(message)
        if message.role == "user":
            think_s = think_time_s if turns else 0.0
            turns.append(Turn(tuple(pending), max_tokens or OUTPUT_TOKENS, think_s))
            pending = []
    return turns


SCENARIO = Scenario(
    "file",
    "your own conversations, as JSON Lines or ShareGPT's JSON (scenario.path=chats.jsonl)",
    FileOptions,
    conversations,
)
