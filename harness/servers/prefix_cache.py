"""Empty the prefix cache of a server of ours before a cell, and let the server's own count prove it.

A server's "ok" is not believed. A fixed prompt is sent twice, so that it is found cached. Then come the
engine's calls, then the prompt once more, of which nothing may be cached. Nothing that happens here fails a
cell. Knows no engine: the engine's file has the calls, and says where a server counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice

from harness.contracts import (
    METRICS_PATH,
    AttachSpec,
    CacheReset,
    Deployment,
    Engine,
    HttpCall,
    LaunchSpec,
    Reason,
    ServerTerm,
)
from harness.load.answer.chat import Decoded, decode_whole
from harness.servers import probe
from harness.servers.scrape import Terms

# For all of it: a CPU may read a large model's prompt at 15 tokens/s.
LIMIT_S = 60.0
# A server may still be busy with a request whose user is gone.
TRIES = 3
RETRY_S = 0.3
# More than two of the largest blocks that are common, vLLM's on a CPU of 128 tokens.
PROMPT_WORDS = 320
# What a chat template puts before all prompts may be found again after a reset.
LEFT_SHARE = 0.1
_COUNTED_WITHIN_S = 1.0
_PAGE_TIMEOUT_S = 2.0
_POLL_S = 0.02
_WORDS = "bench asks for this to see what a server keeps of the words that it has read before"
_UNCOUNTED = "the server does not say how many tokens of a prompt were cached"
_NEVER_CACHED = "the server found nothing of the prompt cached before the reset either"


class _RefusedError(Exception):
    """The server refused a question. The text says what came back."""


def reset(engine: Engine, deployment: Deployment, spec: LaunchSpec, key: str | None = None) -> CacheReset:
    """Empty the prefix cache of an idle, ready server, and check that it is empty.

    Blocks for about LIMIT_S at most. An attached server is left alone.
    """
    if isinstance(spec, AttachSpec):
        return CacheReset("none", note="the server was attached to, and may serve others")
    if deployment.terms.prefix_cache is False:
        return CacheReset("none", note="there is no prefix cache (engine.prefix_cache=false)")
    calls = engine.reset_cache(deployment)
    if isinstance(calls, Reason):
        return CacheReset("none", note=calls.text)
    with closing(_Asked(engine, deployment, spec, key)) as asked:
        try:
            asked.prompt()
            return _checked(asked, calls, asked.prompt())
        except _RefusedError as error:
            return CacheReset("failed", note=str(error))


def _checked(asked: _Asked, calls: Sequence[HttpCall], before: Decoded) -> CacheReset:
    """Reset the cache and send the prompt again. `before` is what was said of it the second time."""
    problem, after = "", Decoded()
    for tried in range(TRIES):
        time.sleep(RETRY_S if tried else 0.0)
        try:
            for call in calls:
                asked.call(call)
        except _RefusedError as error:
            problem = str(error)
            continue
        after = asked.prompt()
        problem = "the prompt was still cached after the reset"
        if not _was_cached(after):
            if after.cached_tokens is None:
                return CacheReset("unchecked", after.input_tokens, None, _UNCOUNTED)
            if not _was_cached(before):
                return CacheReset("unchecked", after.input_tokens, after.cached_tokens, _NEVER_CACHED)
            return CacheReset("reset", after.input_tokens, after.cached_tokens)
    return CacheReset("failed", after.input_tokens, after.cached_tokens, problem)


def _was_cached(said: Decoded) -> bool:
    """Return whether more of the prompt was cached than any two prompts share."""
    return (said.cached_tokens or 0) > LEFT_SHARE * (said.input_tokens or 0)


def text(context_length: int | None) -> str:
    """Return a prompt of up to PROMPT_WORDS words, of fewer if a conversation may have few tokens."""
    most = PROMPT_WORDS if context_length is None else min(PROMPT_WORDS, context_length // 2)
    return " ".join(islice(cycle(_WORDS.split()), max(1, most)))


class _Asked:
    """One server that is asked, until LIMIT_S have passed since the first question."""

    def __init__(self, engine: Engine, deployment: Deployment, spec: LaunchSpec, key: str | None) -> None:
        self._spec, self._key = spec, key
        self._deadline = time.monotonic() + LIMIT_S
        self._text = text(deployment.terms.context_length)
        self._terms = Terms(engine.metrics) if "prefix_hit_tokens" in engine.metrics else None
        url = probe.root_of(spec.base_url) + METRICS_PATH
        self._page = probe.Connection(url, key, _PAGE_TIMEOUT_S)

    def close(self) -> None:
        """Close what is kept."""
        self._page.close()

    def call(self, call: HttpCall) -> None:
        """Make one of the engine's calls. Raise _RefusedError if it is not answered well."""
        body = None if call.body is None else json.loads(call.body)
        self._answer(call.method, probe.root_of(self._spec.base_url) + call.path, body)

    def prompt(self) -> Decoded:
        """Have one token generated after the prompt, and return the answer, with what was cached if known."""
        before = self._counters()
        message = {"role": "user", "content": self._text}
        body = {
            "model": self._spec.served_model,
            "messages": [message],
            "max_tokens": 1,
            "temperature": 0,
            # As the requests of a cell: not all servers say the same where they do not stream.
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = self._answer("POST", f"{self._spec.base_url.rstrip('/')}/chat/completions", body)
        said = decode_whole(answer.text.encode())
        return said if said.cached_tokens is not None else replace(said, cached_tokens=self._hits(before))

    def _answer(self, method: str, url: str, body: object) -> probe.Answer:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise _RefusedError(f"it took longer than {LIMIT_S:g} s")
        answer = probe.request(method, url, timeout_s=left_s, body=body, key=self._key)
        if answer.status is None or not 200 <= answer.status < 300:
            what = f"{method} {url.removeprefix(probe.root_of(self._spec.base_url))}"
            raise _RefusedError(f"{what} {'got' if answer.status is None else 'answered'} {answer}")
        return answer

    def _counters(self) -> Mapping[ServerTerm, float]:
        """Return what the server's metrics page says now, nothing if it has none."""
        page = self._page.ask("GET") if self._terms else None
        return self._terms.of(page.text)[0] if self._terms and page and page.status == 200 else {}

    def _hits(self, before: Mapping[ServerTerm, float]) -> int | None:
        """Return the tokens found cached since `before`, once the page counts the prompt."""
        if "prefix_query_tokens" not in before or "prefix_hit_tokens" not in before:
            return None
        deadline = time.monotonic() + _COUNTED_WITHIN_S
        while time.monotonic() < deadline:
            now = self._counters()
            if now.keys() >= before.keys() and now["prefix_query_tokens"] > before["prefix_query_tokens"]:
                return int(now["prefix_hit_tokens"] - before["prefix_hit_tokens"])
            time.sleep(_POLL_S)
        return None
