"""Ask one server over HTTP: does it listen, does it generate, what does it say of itself.

Bench's own HTTP client, without proxies and redirects; engines/tgi has another for one page. Error texts
never hold the key. It does not measure: that is harness/load's.
"""

import http.client
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from harness.contracts import AttachSpec
from harness.errors import UserError
from harness.load.answer.chat import Decoded, decode

CHAT_PATH = "/chat/completions"  # from the base URL
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_FAILURES: Mapping[type[Exception], str] = {
    ConnectionRefusedError: "connection refused",
    TimeoutError: "no answer in time",
    socket.gaierror: "no such host",
}
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
    """What a server answered. `status` is None if nothing came back, and `text` then says why.

    `read_ns` (CLOCK_MONOTONIC) is when each part of the body was read, `read_ends` the offset behind it.
    """

    status: int | None
    body: bytes
    read_ns: Sequence[int] = ()
    read_ends: Sequence[int] = ()

    def __str__(self) -> str:
        return f"got {self.shown}" if self.status is None else f"answered {self.status}: {self.shown}"

    @property
    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode(errors="replace")

    @property
    def shown(self) -> str:
        """Return the text on one line, of a length that fits into a message."""
        return " ".join(self.text.split())[:200] or "(nothing)"

    def decoded(self) -> Decoded:
        """Return what it says as the answer to a chat completion."""
        return decode(self.body, self.read_ns, self.read_ends)


def root_of(base_url: str) -> str:
    """Return the server's root: base_url without its last /v1."""
    return base_url.rstrip("/").removesuffix("/v1")


def request(
    method: str, url: str, *, timeout_s: float, body: object = None, key: str | None = None
) -> Answer:
    """Send one request on a connection of its own. See Connection.ask."""
    with closing(Connection(url, key, timeout_s)) as connection:
        return connection.ask(method, body)


class Connection:
    """A connection to one address of a server, kept between questions. Not for two threads at once.

    It is made with the first question, and again if the server has closed it. `timeout_s` bounds each wait.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self._url = url
        self._key = key
        self._timeout_s = max(0.01, timeout_s)
        self._kept: http.client.HTTPConnection | None = None

    def ask(self, method: str, body: object = None) -> Answer:
        """Send one request. Block for the time limit, twice that if bytes keep trickling in."""
        was_kept = self._kept is not None and self._kept.sock is not None
        try:
            try:
                return self._ask(method, body)
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if not was_kept:
                    raise
                return self._ask(method, body)  # the server had closed it while it waited
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            known = (text for kind, text in _FAILURES.items() if isinstance(error, kind))
            said = next(known, f"{type(error).__name__}: {error}")
            return Answer(None, self._masked(said.encode(errors="replace")))

    def _ask(self, method: str, body: object) -> Answer:
        parts = urlsplit(self._url)
        if self._kept is None:
            if parts.scheme not in _CONNECTIONS or not parts.hostname:
                raise ValueError("not an address of the form http://HOST:PORT/v1")
            connect = _CONNECTIONS[parts.scheme]
            self._kept = connect(parts.hostname, parts.port, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._kept.request(method, target, content, headers)
        response = self._kept.getresponse()
        deadline = time.monotonic() + self._timeout_s
        read, read_ns, read_ends = bytearray(), list[int](), list[int]()
        while piece := response.read1(1 << 18):
            read += piece
            read_ns.append(time.monotonic_ns())
            read_ends.append(len(read))
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(read) > _BODY_LIMIT_BYTES:
                raise ValueError(f"more than {_BODY_LIMIT_BYTES >> 20} MiB")
        response.close()  # read1 does not notice the end, and the connection would wait for it
        return Answer(response.status, self._masked(bytes(read)), read_ns, read_ends)

    def close(self) -> None:
        """Close the connection, if there is one. The next question opens it again."""
        if self._kept is not None:
            self._kept.close()

    def _masked(self, body: bytes) -> bytes:
        """Return the body without the key, in as many bytes, since instants belong to places in it."""
        key = (self._key or "").encode()
        return body.replace(key, b"*" * len(key)) if key else body


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
    answer = request("POST", base_url.rstrip("/") + CHAT_PATH, timeout_s=timeout_s, body=body, key=key)
    if answer.status != 200:
        return Generation(f"a generation {answer}", status=answer.status)
    said = answer.decoded()
    if said.server_error is not None:
        return Generation(f"a generation answered 200 with an error: {answer.shown}", status=200)
    # By what came, or by the server's own count.
    if not (said.chunk_ns or said.text or said.reasoning or said.output_tokens):
        return Generation(f"a generation answered 200 without content: {answer.shown}", status=200)
    return Generation(None, (*said.chunk_ns, answer.read_ns[-1])[0], 200)


def count_prompt_tokens(base_url: str, model: str, *, timeout_s: float, key: str | None) -> dict[str, int]:
    """Return the tokens of each of PROMPTS as the server counts them, from a generation of one token each.

    Blocks. A prompt that the server refuses, or for which it tells no usage, is left out.
    """
    counted = {}
    url = base_url.rstrip("/") + CHAT_PATH
    for name, messages in PROMPTS.items():
        body = {"model": model, "messages": list(messages), "max_tokens": 1, "temperature": 0}
        answer = request("POST", url, timeout_s=timeout_s, body=body, key=key)
        if answer.status == 200 and (tokens := answer.decoded().input_tokens):
            counted[name] = tokens
    return counted


def fetch_facts(
    base_url: str, paths: Iterable[str], *, timeout_s: float = 5.0, key: str | None = None
) -> dict[str, Any]:
    """Return the JSON answers at `paths` (from the server's root) by path, without those that did not
    come."""
    facts: dict[str, Any] = {}
    for path in paths:
        answer = request("GET", root_of(base_url) + path, timeout_s=timeout_s, key=key)
        if answer.status == 200:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                facts[path] = msgspec.json.decode(answer.body)
    return facts


def probe_attached(spec: AttachSpec, key: str | None, *, timeout_s: float = 60.0) -> None:
    """Raise UserError if a running server cannot be measured: it must answer, know the model, and generate.

    A server without a list of models is taken at its word.
    """
    at = f"engine.base_url={spec.base_url}"
    listed = request("GET", f"{spec.base_url.rstrip('/')}/models", timeout_s=timeout_s, key=key)
    if listed.status is None:
        raise UserError(f"{at}: no server answers there: {listed.shown}")
    if listed.status in (401, 403):
        said = f"{listed.status}: {listed.shown}"
        raise UserError(f"{at}: the key was refused ({said}); engine.api_key_env names its variable")
    names = []
    if listed.status == 200:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError):
            names = [str(model["id"]) for model in msgspec.json.decode(listed.body)["data"]]
    if names and spec.served_model not in names:
        raise UserError(
            f"model={spec.served_model}: {spec.base_url} does not serve it; it serves {', '.join(names)}"
        )
    generation = generate(spec.base_url, spec.served_model, timeout_s=timeout_s, key=key)
    if generation.problem:
        raise UserError(f"{at}: model {spec.served_model} cannot be measured: {generation.problem}")
