"""A server that repeats its key in many encodings. Each encoding is a function of the key."""

import base64
import html
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from typing import Any
from urllib.parse import quote

from fake_http import Answer, Request, fake_http, page, stream

# It contains characters that each of the encodings changes.
KEY = "sk-Ab3/x+_9-Zq&7tR.w=E2"


def _by_percent(key: str) -> str:
    return "".join(f"%{byte:02X}" for byte in key.encode())


def _in_base64(before: str) -> Callable[[str], str]:
    def encoded(key: str) -> str:
        return base64.b64encode(f"{before}{key}".encode()).decode()

    return encoded


def _in_url_base64(key: str) -> str:
    return base64.urlsafe_b64encode(f"me:{key}".encode()).decode().rstrip("=")


def _in_lines_of_base64(key: str) -> str:
    code = base64.b64encode(key.encode()).decode()
    return "\r\n".join(code[at : at + 8] for at in range(0, len(code), 8))


def _in_hex(joint: str) -> Callable[[str], str]:
    def encoded(key: str) -> str:
        return joint.join(f"{byte:02x}" for byte in key.encode())

    return encoded


def _joined(joint: str, size: int = 1) -> Callable[[str], str]:
    def split(key: str) -> str:
        return joint.join(key[at : at + size] for at in range(0, len(key), size))

    return split


def _in_json(key: str) -> str:
    return "".join(f"\\u{ord(each):04x}" for each in key)


def _in_html(pattern: str) -> Callable[[str], str]:
    def encoded(key: str) -> str:
        return "".join(pattern.format(ord(each)) for each in key)

    return encoded


ECHOES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in the other case": str.swapcase,
    "by percent where it must be": lambda key: quote(key, safe=""),
    "by percent": _by_percent,
    "by percent in the other case": lambda key: _by_percent(key).lower(),
    "by percent twice": lambda key: quote(_by_percent(key), safe=""),
    "in base64": _in_base64(""),
    "in base64 after one byte": _in_base64(":"),
    "in base64 after two bytes": _in_base64("a:"),
    "in Basic credentials": _in_base64("someone:"),
    "in the base64 of URLs": _in_url_base64,
    "in lines of base64": _in_lines_of_base64,
    "spaced": _joined(" "),
    "in lines": _joined("\n", 5),
    "in words": _joined("   ", 4),
    "with hyphens": _joined("-"),
    "with hyphens and line ends": _joined("-\r\n", 7),
    "with line ends as JSON": _joined("\\n", 6),
    "by JSON": _in_json,
    "by JSON in capitals": lambda key: _in_json(key).replace("\\u00", "\\U00").upper().replace("\\U", "\\u"),
    "as JSON": lambda key: json.dumps(key).replace("/", "\\/"),
    "by HTML": _in_html("&#{};"),
    "by HTML in hexadecimal": _in_html("&#x{:X};"),
    "as HTML": html.escape,
    "in hexadecimal": _in_hex(""),
    "in capital hexadecimal": lambda key: _in_hex("")(key).upper(),
    "in spaced hexadecimal": _in_hex(":"),
    "by C": lambda key: "".join(f"\\x{byte:02x}" for byte in key.encode()),
}


class Echo:
    """Answers two streams well and the third with an error, each with the key in many encodings."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.ways, self.turns = cycle(ECHOES), cycle([True, True, False])
        self.lock = threading.Lock()

    def echoes(self, number: int) -> str:
        with self.lock:
            return "; ".join(ECHOES[next(self.ways)](self.key) for _ in range(number))

    def reply(self, request: Request) -> Answer:
        answer = self.page() if request.method == "GET" else self.chat(is_stream=request.value.get("stream"))
        return replace(answer, headers={"X-Was-Asked-With": self.key})

    def page(self) -> Answer:
        echo = self.echoes(5)
        models = [{"id": "tiny", "owned_by": echo}]
        return page({"id": echo, "data": models, "model_name": echo, "parameters": {"max_seq_len": echo}})

    def chat(self, *, is_stream: bool | None) -> Answer:
        echo = self.echoes(3)
        if is_stream:
            return self.stream(echo) if next(self.turns) else self.error(echo)
        names = [*echo, *(echo[at : at + 3] for at in range(0, len(echo), 3))]
        tokens = [{"token": name, "logprob": -1.0} for name in names]
        places = {"content": [{**token, "top_logprobs": [token]} for token in tokens]}
        choice = {"message": {"content": echo}, "logprobs": places, "finish_reason": echo}
        return page({"choices": [choice], "usage": {"prompt_tokens": 5}})

    def error(self, echo: str) -> Answer:
        return page({"error": {"message": echo, "type": self.echoes(1)}}, 500)

    def stream(self, echo: str) -> Answer:
        """Return the key token by token, in reasoning, text and a tool call."""
        pieces = [echo[at : at + 5] for at in range(0, len(echo), 5)]
        call = {"index": 0, "function": {"name": echo, "arguments": echo}}
        deltas: list[dict[str, Any]] = [
            *({"reasoning_content": piece} for piece in pieces),
            *({"content": piece} for piece in pieces),
            {"content": echo, "tool_calls": [call]},
        ]
        events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": echo}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(deltas)}}
        return stream(*events, end, usage)


@contextmanager
def echoing(key: str) -> Iterator[str]:
    """Run the server during the block, and yield its base URL."""
    with fake_http(Echo(key).reply) as server:
        yield server.base_url
