"""Facts recorded with a run and its starts, and never a secret's value."""

import os
from pathlib import Path

import psutil
import pytest
from bench_command import begun, ended, made, quick
from waiting import wait_until

from serving_bench.harness.sampling import environment


def test_what_bears_on_a_server_is_recorded_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HF_HUB_TOKEN", "hf_verysecret")
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    monkeypatch.setenv("VLLM_PREFILL_MAX_TOKENS", "4096")
    monkeypatch.setenv("DOCKER_HOST", "tcp://user:sesame@127.0.0.1:1")
    monkeypatch.setenv("MY_DIARY", "private")
    recorded = environment.of_server(
        {"VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": "1", "A_PASSWORD": "x"}
    )
    assert recorded["OMP_NUM_THREADS"] == "1"
    assert recorded["TOKENIZERS_PARALLELISM"] == "false"
    assert recorded["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert recorded["HF_HUB_TOKEN"] == recorded["VLLM_API_KEY"] == recorded["A_PASSWORD"] == "***"
    assert recorded["VLLM_PREFILL_MAX_TOKENS"] == "4096"
    assert recorded["DOCKER_HOST"] == "tcp://***@127.0.0.1:1"
    assert "MY_DIARY" not in recorded
    assert list(recorded) == sorted(recorded)


def test_what_the_loader_is_told_is_recorded_with_a_start_that_was_told_it(tmp_path: Path) -> None:
    place, secret = made(tmp_path / "p"), "sesame-of-this-test"
    told = {"LD_BIND_NOW": "1", "LD_LIBRARY_PATH": "/nowhere/lib", "LD_LICENSE_KEY": secret}
    words = (*quick("load.duration=3s"), "--output", "run")
    with begun(place, "run", *words, **told) as process:
        wait_until(lambda: place.rows_so_far(1), 30)
        server = psutil.Process(place.starts()[0]["pid"]).environ()
        done = ended(process)
    assert done.returncode == 0, done.stderr
    plain = {"LD_BIND_NOW": "1", "LD_LIBRARY_PATH": "/nowhere/lib"}
    assert {name: server[name] for name in told.keys() & server} == plain
    for recorded in (place.starts()[0]["environment"], place.run()["environment"]["variables"]):
        assert {name: recorded[name] for name in told} == {**plain, "LD_LICENSE_KEY": "***"}
    assert not [path for path in _files(place.path) if secret.encode() in path.read_bytes()]


def test_machine_facts_name_what_a_reader_compares() -> None:
    facts = environment.machine_facts()
    assert facts["cores_logical"] == os.cpu_count()
    assert facts["kernel"] == f"{os.uname().sysname} {os.uname().release}"
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert isinstance(facts["cpu_model"], str)
    assert "boot_id" not in facts  # it would tell a run's readers which others this machine measured


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_memory_is_read_at_a_speed_that_a_machine_can_have() -> None:
    speed = environment.read_bytes_per_s()
    assert speed is not None
    assert 1e8 < speed < 1e13
