"""A server that repeats the key in every way, in all that it says: it is in nothing that a run leaves."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from bench_command import begun, bench, ended, made, quick
from echoes import ECHOES
from waiting import wait_until

from harness.contracts import MASK, secret_in

KEY = "sk-Ab3/x+_9-Zq&7tR.w=E2"


class Echo(BaseHTTPRequestHandler):
    """Answers two requests well, the third with an error, with the key in all of it, in many ways."""

    protocol_version = "HTTP/1.1"
    ways: Iterator[str]
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

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
        """Sends the key token by token, within what it thinks, says and calls."""
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
            return "; ".join(ECHOES[next(self.ways)](KEY) for _ in range(number))

    def answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Was-Asked-With", KEY)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def echoing() -> Iterator[str]:
    ways = {"ways": cycle(ECHOES), "turns": cycle([True, True, False])}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Echoing", (Echo,), ways)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_a_key_that_a_server_repeats_in_every_way_is_in_nothing_that_is_left(
    tmp_path: Path, echoing: str
) -> None:
    place = made(tmp_path / "p")
    (tmp_path / "p" / "run").mkdir(mode=0o755)  # the user's own folder, which others may enter
    words = [word for word in quick() if not word.startswith(("engine=", "reference.", "quality"))]
    asked = [
        "run", "engine=openai", f"engine.base_url={echoing}", "engine.api_key_env=OWN_NAME", "model=tiny",
        *words, "load.keep_bytes=true", "quality=fidelity", "scenario.think_time=10ms",
    ]  # fmt: skip
    with begun(place, *asked, "--output", "run", OWN_NAME=KEY) as process:
        wait_until(lambda: process.poll() is not None or place.rows_so_far(1), 30)
        command_lines = [word for each in psutil.process_iter() for word in _command_line(each)]
        done = ended(process)
    assert done.returncode in (0, 1), done.stderr
    printed = [done.stdout, done.stderr]
    for more in (
        ["--format", "csv"],
        ["--format", "json"],
        ["--format", "parquet", "--table", "requests"],
        ["--format", "md"],
    ):
        read = bench(place, "report", "run", *more, "--output", f"out.{more[1]}")
        assert read.returncode == 0, read.stderr
        printed += [read.stdout, read.stderr]
    rows = pq.read_table(place.run_dir / "cells" / "001" / "requests.parquet").to_pylist()
    assert {"ok", "http_error"} <= {row["outcome"] for row in rows}
    assert all(MASK in row["output_text"] for row in rows if row["outcome"] == "ok")
    assert all(MASK in row["error"] for row in rows if row["outcome"] == "http_error")
    files = [path for path in place.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    held = {str(path): _contents(path) for path in files} | dict(enumerate(printed + command_lines))
    found = {
        name: [way for way in ECHOES if ECHOES[way](KEY).encode() in data] for name, data in _bytes(held)
    }
    assert not {name: ways for name, ways in found.items() if ways}
    assert not {name for name, data in _bytes(held) if secret_in(data, [KEY])}
    modes = {
        str(path): stat.S_IMODE(path.stat().st_mode) for path in files if path.is_relative_to(place.run_dir)
    }
    modes |= {str(path): stat.S_IMODE(path.stat().st_mode) for path in place.path.glob("out.*")}
    assert not {path: oct(mode) for path, mode in modes.items() if mode & 0o077}


def _contents(path: Path) -> bytes:
    data = path.read_bytes()
    return str(pq.read_table(path).to_pylist()).encode() + data if path.suffix == ".parquet" else data


def _bytes(held: dict[object, str | bytes]) -> Iterator[tuple[object, bytes]]:
    for name, data in held.items():
        yield name, data if isinstance(data, bytes) else data.encode()


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
