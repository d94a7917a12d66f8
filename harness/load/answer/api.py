"""Define what a chat API is: how an answer is asked for, and what an event of its stream means.

Each API has a file beside this one. All turn their events into Chunk, which has OpenAI's form, so that one
decoder finds the first content, the counts and the errors of every API.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from serving_bench.harness.contracts import Message, Turn

Tokens = tuple[int | None, ...]  # input, output, cached
# A token count of one request from here on is not believed: no model has such a context.
ABSURD = 1 << 31
# The fields that are read as counts, of every API and of llama.cpp's timings.
_COUNTS = frozenset(
    """
    prompt_tokens completion_tokens cached_tokens input_tokens output_tokens cache_read_input_tokens
    cache_creation_input_tokens promptTokenCount candidatesTokenCount thoughtsTokenCount
    cachedContentTokenCount prompt_n predicted_n cache_n
    """.split()  # noqa: SIM905 - a list of 14 quoted words reads worse
)
# The finish_reason, whatever the API calls it, if the model or a filter refused to answer or to go on.
REFUSED = "content_filter"


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None  # of an answer that was not streamed
    finish_reason: str | None = None


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    error: Any = None
    object: str | None = None


@dataclass(frozen=True)
class Api:
    """One chat API over HTTP and server-sent events.

    `version`: the end of its base URL, which a user may leave out. `path`: where a streamed answer is asked
    for, from the base URL; `{model}` stands for the model. `listing`: where it lists all models in OpenAI's
    format; None: nowhere. The key is sent in the header `key_header`, after `key_prefix`.
    """

    path: str
    # Return the fields of a request: model, turn, all messages so far, and the engine's own fields, which
    # take precedence.
    request: Callable[[str, Turn, Sequence[Message], Mapping[str, Any]], dict[str, Any]]
    # Return what an event's data says. Raises ValueError or RecursionError if it is not one of the API's.
    read: Callable[[bytes], Chunk]
    # Return the counts of its `usage`, all events together.
    tokens: Callable[[Mapping[str, Any]], Tokens]
    version: str = ""
    listing: str | None = None
    key_header: str = "Authorization"
    key_prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def base_of(self, url: str) -> str:
        """Return `url` with the version appended, unless it ends in one."""
        base = url.rstrip("/")
        return base if re.search(r"/v\d\w*$", base) else base + self.version

    def path_of(self, model: str) -> str:
        return self.path.format(model=quote(model, safe=""))

    def headers_with(self, key: str | None) -> dict[str, str]:
        headers = {self.key_header: f"{self.key_prefix}{key}"} if key else {}
        return {**self.headers, **headers}


def count(fields: Any, name: str) -> int | None:
    """Return a count of tokens; None if the field is missing or is not a possible count."""
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if type(value) is int and 0 <= value < ABSURD else None


def absurd_counts(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield `name=value` for each token count that no request can have.

    Any field whose name says that it counts tokens must not be too large. A field that bench reads must also
    be a whole number of at least 0.
    """
    for name, value in fields.items():
        is_large = type(value) is int and value >= ABSURD
        # `_n` as in llama.cpp's timings. Other names may be of anything, such as a rate.
        if is_large and ("token" in name.lower() or name.endswith("_n")):
            yield f"{name}={value}"
        elif name in _COUNTS and value is not None and count(fields, name) is None:
            yield f"{name}={value!r}"
        elif isinstance(value, dict):
            yield from absurd_counts(value)


def whole_text(messages: Sequence[Message], role: str) -> str:
    """Return the joined texts of a role's messages, for an API that takes them apart from the others."""
    return "\n\n".join(message.content for message in messages if message.role == role)


def call_id(place: int) -> str:
    """Return the id of the call in the history's message at `place`."""
    # Mistral's chat templates accept only nine letters and digits.
    return f"call{place:05d}"


def call_delta(index: int | None, name: str | None, arguments: str | None) -> msgspec.Raw:
    """Return a part of a tool call. `index`: which call of the answer; None: this part is a whole call."""
    part = {"index": index, "function": {"name": name, "arguments": arguments}}
    return msgspec.Raw(msgspec.json.encode(part))
