"""Empty a server's prefix cache before a cell, and prove it by the server's own counts.

It sends a fixed prompt twice, so that it is cached. It makes the engine's calls and sends the prompt again:
now none of it may be cached. Once this has proven the calls, it only makes them and sends the prompt once.
Nothing here fails a cell.
"""

import time
from itertools import cycle, islice

from serving_bench.harness.contracts import (
    AttachSpec,
    CacheReset,
    Deployment,
    Engine,
    HttpCall,
    LaunchSpec,
    Reason,
)
from serving_bench.harness.errors import ServerError
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.chat import Decoded
from serving_bench.harness.servers import probe

# For the whole reset: a CPU may read a large model's prompt at 15 tokens/s.
LIMIT_S = 60.0
# A server may still be busy with a request whose user is gone.
TRIES = 3
RETRY_S = 0.3
# More than two of the largest usual blocks, those of 128 tokens that vLLM has on a CPU.
PROMPT_WORDS = 256
_WORDS = "bench asks for this to see what a server keeps of the words that it has read before"


def reset(engine: Engine, deployment: Deployment, spec: LaunchSpec, *, is_proven: bool = False) -> CacheReset:
    """Reset the prefix cache of an idle, ready server, and check it. Blocks for about LIMIT_S at most.

    `is_proven`: that the calls empty a cache was shown on an equal server.
    """
    if isinstance(spec, AttachSpec):
        return CacheReset("none", note="the server is not bench's own, and may serve others")
    if deployment.terms.prefix_cache is False:
        return CacheReset("none", note="there is no prefix cache (engine.prefix_cache=false)")
    calls = engine.reset_cache(deployment)
    if isinstance(calls, Reason):
        return CacheReset("none", note=str(calls))
    root, deadline = probe.root_of(spec.base_url), time.monotonic() + LIMIT_S
    body = {
        "model": spec.served_model,
        "messages": [{"role": "user", "content": text(deployment.terms.context_length)}],
        "max_tokens": 1,
        "temperature": 0,
        # As a cell's requests do: some servers report something else if they do not stream.
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    prompt = HttpCall("POST", spec.base_url.removeprefix(root) + openai.API.path, body)
    try:
        before = after = Decoded()
        for _ in range(0 if is_proven else 2):
            before = _send(root, prompt, deadline).decoded()
        for tried in range(TRIES):
            time.sleep(RETRY_S if tried else 0.0)
            try:
                for call in calls:
                    _send(root, call, deadline)
            except ServerError as error:
                problem = str(error)
                continue
            after = _send(root, prompt, deadline).decoded()
            if not _was_cached(after):
                note = None
                if after.cached_tokens is None:
                    note = "the server does not say how many tokens of a prompt were cached"
                elif not is_proven and not _was_cached(before):
                    note = "the server found nothing of the prompt cached before the reset either"
                return CacheReset(
                    "unchecked" if note else "reset", after.input_tokens, after.cached_tokens, note
                )
            problem = "the prompt was still cached after the reset"
    except ServerError as error:
        return CacheReset("failed", note=str(error))
    return CacheReset("failed", after.input_tokens, after.cached_tokens, problem)


def _send(root: str, call: HttpCall, deadline: float) -> probe.Answer:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise ServerError(f"it took longer than {LIMIT_S:g} s")
    answer = probe.request(call.method, root + call.path, timeout_s=left_s, body=call.body)
    if answer.status is None or not 200 <= answer.status < 300:
        raise ServerError(f"{call.method} {call.path} {answer}")
    return answer


def _was_cached(answer: Decoded) -> bool:
    # What a chat template puts before every prompt may be cached even after a reset.
    return (answer.cached_tokens or 0) > 0.1 * (answer.input_tokens or 0)


def text(context_length: int | None) -> str:
    most = PROMPT_WORDS if context_length is None else min(PROMPT_WORDS, context_length // 2)
    return " ".join(islice(cycle(_WORDS.split()), max(1, most)))
