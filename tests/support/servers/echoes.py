"""A server that repeats its key in many encodings. Each encoding is a function of the key."""

from __future__ import annotations

import base64
import html
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import cycle
from urllib.parse import quote

from served import served

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


class Echo(BaseHTTPRequestHandler):
    """Answers two requests well and the third with an error, each with the key in many encodings."""

    protocol_version = "HTTP/1.1"
    ways: Iterator[str]
    turns: Iterator[bool]
    key: str
    lock = threading.Lock()

    def do_GET(self) -> None:
        said = self.echoes(5)
        page = {
            "data": [{"id": "tiny", "owned_by": said}],
            "model_name": said,
            "parameters": {"max_seq_len": said},
        }
        self.answer(200, "application/json", json.dumps({"id": said, **page}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = self.echoes(3)
        if not asked.get("stream"):
            names = [*said, *(said[at : at + 3] for at in range(0, len(said), 3))]
            places = [
                {"token": name, "logprob": -1.0, "top_logprobs": [{"token": name, "logprob": -1.0}]}
                for name in names
            ]
            choice = {"message": {"content": said}, "logprobs": {"content": places}, "finish_reason": said}
            self.answer(
                200, "application/json", json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5}})
            )
        elif next(self.turns):
            self.stream(said)
        else:
            self.answer(
                500, "application/json", json.dumps({"error": {"message": said, "type": self.echoes(1)}})
            )

    def stream(self, said: str) -> None:
        """Send the key token by token, in reasoning, text and a tool call."""
        pieces = [said[at : at + 5] for at in range(0, len(said), 5)]
        deltas = [{"reasoning_content": piece} for piece in pieces] + [{"content": piece} for piece in pieces]
        deltas.append(
            {"content": said, "tool_calls": [{"index": 0, "function": {"name": said, "arguments": said}}]}
        )
        events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": said}]})
        events.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(deltas)}})
        self.answer(200, "text/event-stream", "".join(f"data: {json.dumps(event)}\n\n" for event in events))

    def echoes(self, number: int) -> str:
        with self.lock:
            return "; ".join(ECHOES[next(self.ways)](self.key) for _ in range(number))

    def answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Was-Asked-With", self.key)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def echoing(key: str) -> Iterator[str]:
    """Run the server during the block, and yield its base URL."""
    own = {"ways": cycle(ECHOES), "turns": cycle([True, True, False]), "key": key}
    with served(type("Echoing", (Echo,), own)) as port:
        yield f"http://127.0.0.1:{port}/v1"
