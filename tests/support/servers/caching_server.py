"""An OpenAI-compatible server with a prefix cache, run as a program with llama-server's arguments.

A token is a word of all messages together. Prompts are cached in blocks of BLOCK tokens until
/slots/N?action=erase. CACHING_SERVER in its environment: `refuses` to erase, `lies` that it has erased,
`forgets` (caches nothing), `uncounted` (answers do not say what was cached, but the metrics page does),
`silent` (neither does), `busy` (the first try to erase is refused), `mute` (a request for logprobs waits for
ever), `deaf` (a request without a stream gets an error).
"""

import argparse
import os
import re
import sys
import threading
from typing import Any

from fake_http import NOT_FOUND, Answer, Request, fake_http, page, stream, text

BLOCK = 16
MODE = os.environ.get("CACHING_SERVER", "")


class Cache:
    """The cached blocks of prompts, each with all words before it, and the counts of tokens."""

    def __init__(self) -> None:
        self.blocks: set[tuple[str, ...]] = set()
        self.queried = self.hit = self.erased = 0
        self.lock = threading.Lock()

    def read(self, words: tuple[str, ...]) -> int:
        """Read a prompt. Return how many of its tokens were cached; the last one never is."""
        ends = range(BLOCK, len(words), BLOCK)
        with self.lock:
            cached = max((end for end in ends if words[:end] in self.blocks), default=0)
            if MODE != "forgets":
                self.blocks.update(words[:end] for end in ends)
            self.queried += len(words)
            self.hit += cached
        return cached

    def erase(self) -> int:
        """Erase the cache as MODE says, and return the status of the answer."""
        with self.lock:
            self.erased += 1
            if MODE == "refuses" or (MODE == "busy" and self.erased == 1):
                return 501
            if MODE != "lies":
                self.blocks.clear()
            return 200


CACHE = Cache()


def metrics() -> str:
    counted = {"prompt_tokens_total": CACHE.queried - CACHE.hit, "prompt_tokens_cached_total": CACHE.hit}
    return "".join(f"# TYPE llamacpp:{name} counter\nllamacpp:{name} {n}\n" for name, n in counted.items())


def usage(prompt_tokens: int, cached_tokens: int, output_tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }
    is_told = MODE not in ("uncounted", "silent")
    return found | ({"prompt_tokens_details": {"cached_tokens": cached_tokens}} if is_told else {})


def reply(request: Request) -> Answer:
    if request.path == "/health":
        return page({})
    if request.path == "/metrics" and MODE != "silent":
        return text(metrics())
    if re.fullmatch(r"/slots/\d\?action=erase", request.path):
        return page({"id_slot": 0}, CACHE.erase())
    return generated(request.value) if request.path == "/v1/chat/completions" else NOT_FOUND


def generated(body: dict[str, Any]) -> Answer:
    words = tuple(" ".join(message["content"] for message in body["messages"]).split())
    counts = usage(len(words), CACHE.read(words), body["max_tokens"])
    if body.get("stream"):
        chunk = {"choices": [{"index": 0, "delta": {"content": "word "}}]}
        return stream(*[chunk] * body["max_tokens"], {"choices": [], "usage": counts}, "[DONE]")
    if MODE == "deaf":
        return page({}, 500)
    message = {"role": "assistant", "content": "word"}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    if body.get("logprobs"):
        if MODE == "mute":
            threading.Event().wait()
        token = {"token": "word", "logprob": -0.5, "bytes": list(b"word")}
        choice["logprobs"] = {"content": [{**token, "top_logprobs": [token]}]}
    return page({"choices": [choice], "usage": counts})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    args, _ = parser.parse_known_args(sys.argv[1:])
    with fake_http(reply, args.host, args.port) as server:
        server.ended.wait()


if __name__ == "__main__":
    main()
