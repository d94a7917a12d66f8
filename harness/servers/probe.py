"""Ask one server over HTTP: does it listen, does it generate, what does it say of itself.

The only HTTP client of bench itself: no proxies, no redirects. Error texts never hold the key. It does not
measure: that is harness/load's.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from harness.contracts import AttachSpec
from harness.errors import UserError
from harness.load.answer.chat import Decoded, decode_whole

OnLine = Callable[[bytes], None]

# vLLM's page of metrics has 50 KiB with the histograms of one model.
_BODY_LIMIT_BYTES = 16 * 2**20
_GENERATION_TOKENS = 8
_USER = {"role": "user", "content": "Name three rivers and the seas that they flow into."}
_SYSTEM = {"role": "system", "content": "You are a geographer. Answer in one short sentence, in plain words."}
_ANSWER = {"role": "assistant", "content": "The Rhine, the Danube and the Rhone."}
_THEN = {"role": "user", "content": "Which of them is the longest?"}
# Short prompts that tell two chat templates apart, by the number of tokens that a server makes of them: a
# doubled BOS adds one token to each, a dropped system prompt makes `system` no longer than `user`.
PROMPTS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "user": (_USER,),
    "system": (_SYSTEM, _USER),
    "turns": (_USER, _ANSWER, _THEN),
}


@dataclass(frozen=True)
class Answer:
    """What a server answered. `status` is None if nothing came back, and `text` then says why."""

    status: int | None
    text: str

    def __str__(self) -> str:
        return _short(self.text) if self.status is None else f"{self.status}: {_short(self.text)}"


def _short(text: str) -> str:
    """Return the text on one line, of a length that fits into a message."""
    return " ".join(text.split())[:200] or "(nothing)"


def root_of(base_url: str) -> str:
    """Return the server's root: base_url without its last /v1."""
    return base_url.rstrip("/").removesuffix("/v1")


def request(
    method: str,
    url: str,
    *,
    timeout_s: float,
    body: object = None,
    key: str | None = None,
    on_line: OnLine | None = None,
) -> Answer:
    """Send one request on a connection of its own. See Connection.ask."""
    with closing(Connection(url, key, timeout_s)) as connection:
        return connection.ask(method, body=body, on_line=on_line)


class Connection:
    """A connection to one address of a server, kept between questions. Not for two threads at once.

    It is made with the first question, and again if the server has closed it. `timeout_s` bounds each wait.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self._url = url
        self._key = key
        self._timeout_s = max(0.01, timeout_s)
        self._kept: http.client.HTTPConnection | None = None

    def ask(self, method: str, *, body: object = None, on_line: OnLine | None = None) -> Answer:
        """Send one request. Block for the time limit, twice that if bytes keep trickling in.

        `on_line` hears each line of the answer's body as soon as it has been read.
        """
        was_kept = self._kept is not None
        try:
            try:
                return self._ask(method, body, on_line)
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if not was_kept:
                    raise
                return self._ask(method, body, on_line)  # the server had closed it while it waited
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            return Answer(None, self._masked(_why(error)))

    def _ask(self, method: str, body: object, on_line: OnLine | None) -> Answer:
        parts = urlsplit(self._url)
        if self._kept is None:
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("not an address of the form http://HOST:PORT/v1")
            self._kept = http.client.HTTPConnection(parts.hostname, parts.port, timeout=self._timeout_s)
            if parts.scheme == "https":
                self._kept = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=self._timeout_s, context=ssl.create_default_context()
                )
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._kept.request(method, target, content, headers)
        response = self._kept.getresponse()
        text = self._read(response, on_line)
        if response.will_close:
            self.close()
        return Answer(response.status, self._masked(text))

    def _read(self, response: http.client.HTTPResponse, on_line: OnLine | None) -> str:
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        heard = 0
        while piece := response.read1(1 << 18):
            body += piece
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(body) > _BODY_LIMIT_BYTES:
                raise ValueError(f"more than {_BODY_LIMIT_BYTES >> 20} MiB")
            while on_line and (end := body.find(b"\n", heard)) >= 0:
                on_line(bytes(body[heard:end]))
                heard = end + 1
        if on_line and heard < len(body):
            on_line(bytes(body[heard:]))
        response.close()  # read1 does not notice the end, and the connection would wait for it
        return body.decode(errors="replace")

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return f"{type(error).__name__}: {error}"


def _complete(base_url: str, body: Mapping[str, Any], **options: Any) -> Answer:
    """Ask for a chat completion, with the options of `request`."""
    return request("POST", f"{base_url.rstrip('/')}/chat/completions", body=body, **options)


@dataclass(frozen=True)
class Generation:
    """One generation as a probe. `problem` is None if tokens came, else a clause on what came instead.

    `first_token_ns` (CLOCK_MONOTONIC): when the first event that bears content had been read. `status` is
    HTTP's, None if nothing came.
    """

    problem: str | None
    first_token_ns: int | None = None
    status: int | None = None


def generate(base_url: str, model: str, *, timeout_s: float, key: str | None = None) -> Generation:
    """Ask for a few streamed tokens. Block until their end."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Count from one to ten."}],
        "max_tokens": _GENERATION_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first_ns: list[int] = []

    def hear(line: bytes) -> None:
        if not first_ns and _bears_content(decode_whole(line + b"\n\n")):
            first_ns.append(time.monotonic_ns())

    answer = _complete(base_url, body, timeout_s=timeout_s, key=key, on_line=hear)
    problem = _generation_problem(answer)
    return Generation(problem, None if problem or not first_ns else first_ns[0], answer.status)


def count_prompt_tokens(base_url: str, model: str, *, timeout_s: float, key: str | None) -> dict[str, int]:
    """Return the tokens of each of PROMPTS as the server counts them, from a generation of one token each.

    Blocks. A prompt that the server refuses, or for which it tells no usage, is left out.
    """
    counted = {}
    for name, messages in PROMPTS.items():
        body = {"model": model, "messages": list(messages), "max_tokens": 1, "temperature": 0}
        answer = _complete(base_url, body, timeout_s=timeout_s, key=key)
        if answer.status == 200 and (tokens := decode_whole(answer.text.encode()).input_tokens):
            counted[name] = tokens
    return counted


def _generation_problem(answer: Answer) -> str | None:
    if answer.status is None:
        return f"a generation got {answer}"
    if answer.status != 200:
        return f"a generation answered {answer}"
    said = decode_whole(answer.text.encode())
    if said.server_error is not None:
        return f"a generation answered 200 with an error: {_short(answer.text)}"
    if not _bears_content(said):
        return f"a generation answered 200 without content: {_short(answer.text)}"
    return None


def _bears_content(said: Decoded) -> bool:
    """Return whether a server generated anything, by what came or by its own count."""
    return bool(said.chunk_ns or said.text or said.reasoning or said.output_tokens)


def fetch_facts(
    base_url: str, paths: Iterable[str], *, timeout_s: float = 5.0, key: str | None = None
) -> dict[str, Any]:
    """Return the JSON answers at `paths` (from the server's root) by path, without those that did not
    come."""
    facts: dict[str, Any] = {}
    for path in paths:
        answer = request("GET", root_of(base_url) + path, timeout_s=timeout_s, key=key)
        if answer.status == 200:
            try:
                facts[path] = json.loads(answer.text)
            except ValueError:
                continue
    return facts


def probe_attached(spec: AttachSpec, key: str | None, *, timeout_s: float = 60.0) -> None:
    """Raise UserError if a running server cannot be measured: it must answer, know the model, and generate.

    A server without a list of models is taken at its word.
    """
    at = f"engine.base_url={spec.base_url}"
    listed = request("GET", f"{spec.base_url.rstrip('/')}/models", timeout_s=timeout_s, key=key)
    if listed.status is None:
        raise UserError(f"{at}: no server answers there: {listed}")
    if listed.status in (401, 403):
        raise UserError(f"{at}: the key was refused ({listed}); engine.api_key_env names its variable")
    names = _model_names(listed)
    if names and spec.served_model not in names:
        raise UserError(
            f"model={spec.served_model}: {spec.base_url} does not serve it; it serves {', '.join(names)}"
        )
    generation = generate(spec.base_url, spec.served_model, timeout_s=timeout_s, key=key)
    if generation.problem:
        raise UserError(f"{at}: model {spec.served_model} cannot be measured: {generation.problem}")


def _model_names(listed: Answer) -> Sequence[str]:
    if listed.status != 200:
        return ()
    try:
        return [str(model["id"]) for model in json.loads(listed.text)["data"]]
    except (ValueError, TypeError, KeyError):
        return ()
