"""A tiny OpenAI-compatible server for tests, run as a program: `python openai_fake.py PORT MODE`.

Modes: `ok` streams; `plain` answers without streaming; `healthy` has a good /health and fails to generate;
`empty` generates nothing; `error` streams an error event after some text; `loading` never becomes healthy;
`crash` logs and exits with 1 on the first GET; `stubborn` ignores TERM; `drip` sends comments for ten
seconds; `counting` sends no text, only the count of tokens; `redirect` redirects /health; `nolist` has no
list of models. With WANTED_KEY in its environment the list needs that key.
"""

import os
import signal
import sys

from fake_http import NOT_FOUND, Answer, Request, fake_http, page, stream

PORT, MODE = int(sys.argv[1]), sys.argv[2]
TEXT = {"choices": [{"index": 0, "delta": {"content": "one"}}]}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]}
EVENTS = {
    "empty": [ROLE],
    "error": [TEXT, {"error": {"message": "CUDA error"}}],
    "counting": [ROLE, {"choices": [], "usage": {"completion_tokens": 3}}],
}


def reply(request: Request) -> Answer:
    if request.method == "POST":
        return generated(request)
    if MODE == "crash":
        print("\x1b[31mloading\x1b[0m\nRuntimeError: CUDA out of memory", flush=True)
        os._exit(1)
    if request.path == "/health":
        return page({"ok": True}, {"loading": 503, "redirect": 302}.get(MODE, 200))
    if request.path == "/v1/models" and MODE != "nolist":
        wanted = os.environ.get("WANTED_KEY")
        if wanted and request.key != f"Bearer {wanted}":
            return page({"error": f"wrong key {request.key}"}, 401)
        return page({"data": [{"id": "tiny"}]})
    return page({"n_ctx": 4096}) if request.path == "/props" else NOT_FOUND


def generated(request: Request) -> Answer:
    if MODE == "healthy" or request.path != "/v1/chat/completions" or request.value["model"] != "tiny":
        return page({"error": f"boom {request.key}"}, 500)
    if MODE == "plain":
        return page({"choices": [{"message": {"content": "one"}}]})
    if MODE == "drip":
        return Answer([0.02, b": still here\n\n"] * 500, kind="text/event-stream")
    return stream(*EVENTS.get(MODE, [ROLE, TEXT]), "[DONE]")


if __name__ == "__main__":
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"serving on {PORT}", flush=True)
    with fake_http(reply, port=PORT) as server:
        server.ended.wait()
