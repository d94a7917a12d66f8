"""Locust's own web UI on our users, as documented: it is for this machine alone, and shows no key."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import psutil
from echoes import KEY, echoing
from held_ports import held_port
from load_process import LIMIT_S, ROOT
from waiting import wait_until

from serving_bench.harness.contracts import secrets_in

PAGES = (
    "/", "/stats/requests", "/stats/requests/csv", "/stats/failures/csv", "/stats/report", "/exceptions",
    "/exceptions/csv", "/tasks", "/logs",
)  # fmt: skip


def test_the_web_ui_listens_here_alone_and_shows_no_key() -> None:
    with held_port() as port, echoing(KEY) as base_url:
        documented = ["-f", "harness/load/locustfile.py", "--host", base_url, "--model", "tiny"]
        with subprocess.Popen(
            [sys.executable, "-m", "locust", *documented, "--web-port", str(port)],
            cwd=ROOT, env={**os.environ, "OPENAI_API_KEY": KEY},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                url = f"http://127.0.0.1:{port}"
                wait_until(lambda: process.poll() is None and _listening(process.pid), LIMIT_S)
                assert {connection.laddr.ip for connection in _listening(process.pid)} == {"127.0.0.1"}
                form = urlencode({"user_count": 2, "spawn_rate": 2, "host": base_url}).encode()
                with urllib.request.urlopen(f"{url}/swarm", form, timeout=LIMIT_S) as answer:
                    assert json.load(answer)["success"]
                wait_until(lambda: json.loads(_page(url, "/stats/requests"))["errors"], LIMIT_S)
                shown = {path: _page(url, path) for path in PAGES}
            finally:
                process.terminate()
            logged = process.communicate(timeout=LIMIT_S)[0]
    assert b"http_error" in shown["/stats/failures/csv"], "it is of the server that repeats the key"
    assert not {path for path, page in {**shown, "log": logged}.items() if [*secrets_in(page, {"KEY": KEY})]}


def test_the_documents_say_how_it_is_started() -> None:
    command = "locust -f harness/load/locustfile.py --host http://127.0.0.1:8000 --model NAME"
    assert command in (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    assert command in Path(ROOT, "harness", "load", "locustfile.py").read_text(encoding="utf-8")


def _listening(pid: int) -> "list[psutil._common.pconn]":
    return [each for each in psutil.Process(pid).net_connections("tcp") if each.status == psutil.CONN_LISTEN]


def _page(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=LIMIT_S) as answer:
        return bytes(answer.read())
