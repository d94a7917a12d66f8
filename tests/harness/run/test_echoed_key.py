"""A server that repeats the key in every way, in all that it says: it is in nothing that a run leaves."""

import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from bench_command import attached, begun, ended, made, told
from echoes import ECHOES, KEY, echoing
from waiting import wait_until

from serving_bench.harness.contracts import MASK, secrets_in


@pytest.fixture
def base_url() -> Iterator[str]:
    with echoing(KEY) as url:
        yield url


def test_a_key_that_a_server_repeats_in_every_way_is_in_nothing_that_is_left(tmp_path: Path, base_url: str):
    place = made(tmp_path / "p")
    (tmp_path / "p" / "run").mkdir(mode=0o755)  # the user's own folder, which others may enter
    words = ("engine.api_key_env=OWN_NAME", "model=tiny", "load.keep_bytes=true", "scenario.think_time=10ms")
    keys = attached(base_url, *words, "quality=fidelity")
    with begun(place, "run", *keys, "--output", "run", OWN_NAME=KEY) as process:
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
        read = told(place, "report", "run", *more, "--output", f"out.{more[1]}")
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
    assert not {name for name, data in _bytes(held) if [*secrets_in(data, {"KEY": KEY})]}
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
