"""Run llama-cpp-python's HTTP server, in its environment (`python -P`), with what a measurement needs.

It adds a chat template from a file, token counts in a stream's last chunk, `min_tokens` that suppresses all
end tokens (not only EOS), and a prompt cache that can be off. An X-Request-Id must be a UUID.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import uvicorn
from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.server import __main__ as server
from llama_cpp.server.model import LlamaProxy
from llama_cpp.server.settings import Settings

# How long a stopped server waits for a running answer.
GRACE_S = 1


@dataclass
class Counts:
    prompt: int = 0
    evaluated: int | None = None  # of the prompt
    answer: int = 0


class HoldBackEnds:
    """Replaces MinTokensLogitsProcessor: suppresses all end tokens among the first `min_tokens`."""

    ends: np.ndarray[Any, Any] = np.empty(0, np.intc)

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        self.left = min_tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.left > 0:
            scores[self.ends] = -np.inf
        self.left -= 1
        return scores


def template_handler(llama: Llama, template: str) -> Any:
    bos, eos = (
        llama._model.token_get_text(token) if token != -1 else ""
        for token in (llama.token_bos(), llama.token_eos())
    )
    formatter = Jinja2ChatFormatter(
        template=template, bos_token=bos, eos_token=eos, stop_token_ids=[llama.token_eos()]
    )
    return formatter.to_chat_handler()


def adapt_loading(template: str | None) -> None:
    load = LlamaProxy.load_llama_from_model_settings

    def loaded(settings: Any) -> Llama:
        llama = load(settings)
        print(f"threads: {llama.n_threads}", flush=True)
        is_end = partial(llama_cpp.llama_vocab_is_eog, llama._model.vocab)
        HoldBackEnds.ends = np.flatnonzero([is_end(token) for token in range(llama.n_vocab())])
        if template is not None:
            llama.chat_handler = template_handler(llama, template)
        return llama

    LlamaProxy.load_llama_from_model_settings = staticmethod(loaded)
    llama_cpp.MinTokensLogitsProcessor = HoldBackEnds


def count_tokens(keeps_prefix: bool) -> None:
    """Make each stream end with a chunk that has `usage` and no choices, as OpenAI's streams do."""
    generate, evaluate, complete = Llama.generate, Llama.eval, Llama.create_chat_completion

    def generated(self: Llama, tokens: Sequence[int], *args: Any, **kwargs: Any) -> Iterator[int]:
        if not keeps_prefix:
            self.reset()
        self.counts = Counts(prompt=len(tokens))
        for token in generate(self, tokens, *args, **kwargs):
            if not llama_cpp.llama_vocab_is_eog(self._model.vocab, token):
                self.counts.answer += 1
            yield token

    def evaluated(self: Llama, tokens: Sequence[int]) -> None:
        if self.counts.evaluated is None:
            self.counts.evaluated = len(tokens)
        evaluate(self, tokens)

    def completed(self: Llama, *args: Any, **kwargs: Any) -> Any:
        answer = complete(self, *args, **kwargs)
        return with_usage(self, answer) if kwargs.get("stream") else answer

    Llama.counts = Counts()
    Llama.generate, Llama.eval, Llama.create_chat_completion = generated, evaluated, completed


def with_usage(llama: Llama, chunks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for chunk in chunks:
        yield chunk
    counts = llama.counts
    usage = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.answer,
        "total_tokens": counts.prompt + counts.answer,
        "prompt_tokens_details": {"cached_tokens": counts.prompt - (counts.evaluated or 0)},
    }
    yield {**chunk, "choices": [], "usage": usage}


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--chat-template-file", type=Path)
    parser.add_argument("--no-prefix-cache", action="store_true")
    args, sys.argv[1:] = parser.parse_known_args()
    print(f"llama-cpp-python {llama_cpp.__version__}", flush=True)
    if args.chat_template_file:
        print(f"chat template: {args.chat_template_file}", flush=True)
    adapt_loading(args.chat_template_file.read_text() if args.chat_template_file else None)
    count_tokens(keeps_prefix=not args.no_prefix_cache)
    # The server reads settings from the environment; host and port there even override arguments.
    for name in [each for each in os.environ if each.lower() in {*Settings.model_fields, "config_file"}]:
        del os.environ[name]
    # By default a stopped server waits for a running answer, however long that takes.
    uvicorn.run = partial(uvicorn.run, timeout_graceful_shutdown=GRACE_S)
    server.main()


if __name__ == "__main__":
    main()
