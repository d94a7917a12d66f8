"""Repeats are given to nodes one at a time to a machine, and measured once, whatever dies or fails."""

import errno
import os
import socket
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_in_memory import FATES, RUN, Lines, Ray, RaySystemError, Stream, installed, machines, played

from serving_bench.harness.errors import CellError, Interrupted, StoreError
from serving_bench.harness.fleet import node, on_ray
from serving_bench.harness.settings import overrides
from serving_bench.harness.settings.config import settings


@given(
    raylets=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    fates=st.lists(st.tuples(st.sampled_from(list(FATES)), st.integers(0, 3)), min_size=40, max_size=40),
    deaths=st.dictionaries(st.integers(0, 20), st.integers(0, 11), max_size=4),
    repeats=st.integers(1, 6),
)
def test_each_repeat_is_measured_once_on_one_node_and_never_two_at_once_on_a_machine(
    raylets, fates, deaths, repeats
):
    ray = Ray(machines(*raylets), fates, deaths)
    with installed(ray) as folder:
        jobs = played(ray, folder, repeats)
        whole = [job.number for job in jobs if job.is_whole]
    assert ray.running == []
    unable = set()
    for stream in ray.begun:
        assert stream.at not in unable, "a node that could not measure was given another repeat"
        if stream.fate in ("cannot measure", "is killed", "breaks") and stream.at not in ray.dead:
            unable.add(stream.at)
    for job in jobs:
        tries = [stream for stream in ray.begun if stream.number == job.number]
        assert len({stream.at for stream in tries}) == len(tries), "twice on one node"
        assert len(job.lost_on) <= 2
        ends = [stream for stream in tries if stream.fate in ("whole", "cells failed")]
        if job.number in whole:
            assert ends
            assert tries[-1] is ends[-1], "measured again though it was whole"
        else:
            assert job.problem
            able = [each for each in ray.there if each not in ray.dead | unable and each not in job.lost_on]
            assert len(job.lost_on) == 2 or not able, "given up while there was a node"


def test_without_a_fault_every_machine_measures_its_share():
    ray = Ray(machines(1, 2, 1), [("whole", 2)] * 7, {})
    with installed(ray) as folder:
        assert all(job.is_whole for job in played(ray, folder, 6))
    shares = [sum(stream.at.boot_id == f"boot {each}" for stream in ray.begun) for each in range(3)]
    assert shares == [2, 2, 2]


def test_a_node_that_cannot_measure_does_not_eat_all_repeats():
    ray = Ray(machines(1, 1), [("cannot measure", 0), *[("whole", 3)] * 4], {})
    with installed(ray) as folder:
        assert all(job.is_whole for job in played(ray, folder, 4))
    assert [stream.at.host for stream in ray.begun] == ["host0"] + ["host1"] * 4


def test_what_a_lost_node_sent_is_not_mixed_with_what_the_next_one_sends():
    ray = Ray(machines(1, 1), [("dies", 0), ("whole", 0)], {})
    with installed(ray) as folder, pytest.MonkeyPatch.context() as here:
        here.setitem(FATES, "dies", [("file", "starts/09-a/start.json", b"{}"), *FATES["dies"]])
        (job,) = played(ray, folder, 1)
        assert [each.name for each in job.lost_on] == ["host0 (10.0.0.0, 0.0)"]
        assert [path.name for path in folder.rglob("*")] == ["1", "run.json"]


def test_an_interrupt_ends_what_runs_and_keeps_what_is_whole():
    ray = Ray(machines(1, 1), [("whole", 0), ("whole", 1000), ("whole", 1000)], {})
    with installed(ray) as folder:
        jobs = [on_ray.Job(number, folder / f"{number}") for number in (1, 2, 3)]

        class Interrupts:
            def say(self, node: str, number: int, line: str) -> None:
                if number == 3 and line == "line 5":
                    raise Interrupted(2)

        with pytest.raises(Interrupted):
            on_ray.measure(ray.there, [], jobs, Interrupts())
        assert [job.is_whole for job in jobs] == [True, False, False]
    assert sorted(ray.cancelled) == [2, 3]
    assert ray.running == []


def test_an_interrupt_in_rays_core_is_one(monkeypatch):
    ray = Ray(machines(1), [("whole", 0)], {})
    wait = ray.wait

    def interrupted(streams: list[Stream], **asked: Any) -> tuple[list[Stream], None]:
        if not ray.cancelled:
            raise SystemError("returned a result with an exception set") from Interrupted(2)
        return wait(streams, **asked)

    monkeypatch.setattr(ray, "wait", interrupted)
    with installed(ray) as folder, pytest.raises(Interrupted):
        played(ray, folder, 1)
    assert ray.running == []


@pytest.mark.parametrize("what", ["own_is_alive", "raylet_answers"])  # the latter is known at once
def test_a_bench_whose_own_node_is_lost_ends_and_keeps_what_is_whole(what):
    ray = Ray(machines(1, 1), [("whole", 0), ("whole", 1000), ("whole", 1000)], {})
    with installed(ray) as folder:
        jobs = [on_ray.Job(number, folder / f"{number}") for number in (1, 2, 3)]

        class Loses:
            def say(self, node: str, number: int, line: str) -> None:
                setattr(ray, what, (number, line) != (3, "line 5"))

        with pytest.raises(CellError, match="the cluster's node on this machine was lost"):
            on_ray.measure(ray.there, [], jobs, Loses())
        assert [job.is_whole for job in jobs] == [True, False, False]
    assert ray.cancelled == []


def test_a_raylet_that_is_gone_does_not_answer(tmp_path):
    path = str(tmp_path / "raylet")
    assert not on_ray.answers(path)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(path)
        raylet.listen()
        assert on_ray.answers(path)
    assert not on_ray.answers(path)


@pytest.mark.parametrize("broken", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("Broken pipe")])
def test_a_broken_connection_to_the_own_node_is_not_a_file_that_cannot_be_written(broken, monkeypatch):
    ray = Ray(machines(1), [("whole", 1)], {})
    remote = ray.remote

    def cut_off(function: object) -> Any:
        if ray.begun:
            raise broken
        return remote(function)

    monkeypatch.setattr(ray, "remote", cut_off)
    with installed(ray) as folder:
        jobs = [on_ray.Job(number, folder / f"{number}") for number in (1, 2)]
        with pytest.raises(CellError, match="the cluster's node on this machine was lost"):
            on_ray.measure(ray.there, [], jobs, Lines())
        assert [job.is_whole for job in jobs] == [True, False]
    assert ray.cancelled == []


def test_a_large_file_comes_in_parts_and_one_that_was_there_for_a_while_does_not_stay(monkeypatch):
    whole = os.urandom(1000)
    sent = [
        ("file", "cells/001/rows.jsonl", b"for a while"),
        *[("part", "starts/00-a/server.log", whole[each : each + 300]) for each in (0, 300, 600)],
        ("file", "starts/00-a/server.log", whole[900:]),
        RUN,
        ("end", "0", b"run.json\0starts/00-a/server.log"),
        StopIteration(),
    ]
    monkeypatch.setitem(FATES, "whole", sent)
    with installed(Ray(machines(1), [("whole", 0)], {})) as folder:
        played(sys.modules["ray"], folder, 1)
        files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == {"server.log": whole, "run.json": b"{}"}


def test_parts_are_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(node, "PART_BYTES", 300)
    for size in (0, 1, 300, 301, 1000):
        path = tmp_path / "file"
        path.write_bytes(os.urandom(size))
        sent = map(msgspec.msgpack.decode, node._parts(path, "name"))
        kinds, names, pieces = zip(*sent, strict=True)
        assert b"".join(pieces) == path.read_bytes()
        assert set(names) == {"name"}
        assert kinds == ("part",) * (len(kinds) - 1) + ("file",)


def test_a_file_outside_the_run_is_refused_and_its_node_gets_no_more(monkeypatch):
    monkeypatch.setitem(FATES, "is killed", [("file", "../../mine", b""), RUN, StopIteration()])
    ray = Ray(machines(1, 1), [("is killed", 0), *[("whole", 3)] * 3], {})
    with installed(ray) as folder:
        assert all(job.is_whole for job in played(ray, folder, 3))
        assert not (folder.parent / "mine").exists()
    assert [stream.at.host for stream in ray.begun] == ["host0"] + ["host1"] * 3
    assert ray.cancelled == [1]
    ray = Ray(machines(1), [("is killed", 0)], {})
    with installed(ray) as folder:
        (job,) = played(ray, folder, 1)
    assert job.problem == "host0 (10.0.0.0, 0.0): sent a file that is not of its run: ../../mine"


DEEP = "/".join(["cells", *"12345"])
STRANGE: dict[str, tuple[Any, str]] = {
    "an object": ({"a": 1}, "sent what bench does not send (not bytes)"),
    "nothing": (None, "sent what bench does not send (not bytes)"),
    "bytes": (b"no", "sent what bench does not send (Expected `array`, got `int`)"),
    "cut bytes": (b"\x93\xa4line", "sent what bench does not send (Input data was truncated)"),
    "deep bytes": (b"\x91" * 10**5, "sent what bench does not send (Expected `array` of length 3, got 1)"),
    "no kind": (("kind", "", b""), "sent what bench does not send (Invalid enum value 'kind' - at `$[0]`)"),
    "a number for a name": (
        ("file", 7, b""),
        "sent what bench does not send (Expected `str`, got `int` - at `$[1]`)",
    ),
    "what cannot be read": (RaySystemError("x\ny"), "sent what bench does not send (not bytes)"),
    "an end without a number": (("end", "0x", b""), "invalid literal for int() with base 10: '0x'"),
    "names that are no text": (("end", "0", b"\xff"), "'utf-8' codec can't decode"),
    "a name with NUL": (("file", "cells/a\0b", b""), "sent a file that is not of its run: cells/a b"),
    "an absolute name": (("file", "/etc/x", b""), "sent a file that is not of its run: /etc/x"),
    "no name": (("file", "", b""), "sent a file that is not of its run:"),
    "a name of dots": (("file", "cells/../../x", b""), "sent a file that is not of its run: cells/../../x"),
    "a long name": (("file", "cells/" + "x" * 256, b""), "sent a file that is not of its run: cells/xx"),
    "a deep name": (("file", DEEP, b""), f"sent a file that is not of its run: {DEEP}"),
    "a name of nobody's": (("file", "notes.txt", b""), "sent a file that is not of its run: notes.txt"),
    "a file for a folder": (("file", "cells", b""), "Is a directory"),
    "a folder for a file": (("file", "cells/001/x/y", b""), "File exists"),
    "too much at once": (b"x" * ((64 << 20) + 1), "sent 67.1 MB at once, more than 67.1 MB"),
    "more after its end": (("line", "", b""), "sent more than 8.6 GB, or something after the end"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_answer_costs_its_repeat_alone_and_is_one_line_with_the_node(name, monkeypatch):
    answer, said = STRANGE[name]
    before = [("file", "cells/001/x", b""), *([("end", "0", b"")] if name == "more after its end" else [])]
    monkeypatch.setitem(FATES, "breaks", [*before, answer, RUN, ("end", "0", b"run.json"), StopIteration()])
    ray = Ray(machines(1, 1), [("breaks", 0), *[("whole", 3)] * 3], {})
    with installed(ray) as folder:
        assert all(job.is_whole for job in played(ray, folder, 3))
    ray = Ray(machines(1), [("breaks", 0)], {})
    with installed(ray) as folder:
        (job,) = played(ray, folder, 1)
    assert not job.is_whole
    assert job.problem.startswith("host0 (10.0.0.0, 0.0): ")
    assert said in job.problem
    assert "\n" not in job.problem


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [("_MOST_BYTES", 10 << 14, "sent more than 0.2 MB"), ("_LEFT_BYTES", 1 << 60, "a repeat needs about")],
)
def test_a_node_cannot_fill_the_disk(limit, value, said, monkeypatch):
    monkeypatch.setattr(on_ray, limit, value)
    monkeypatch.setitem(FATES, "breaks", [("part", "cells/001/x", b"x")] * 20)
    with installed(ray := Ray(machines(1), [("breaks", 0)], {})) as folder:
        (job,) = played(ray, folder, 1)
        left = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert said in job.problem
    assert left <= 10


def test_a_repeat_that_is_not_what_was_asked_for_is_measured_on_another_node(tmp_path, monkeypatch):
    def check(*_: object) -> None:
        if len(ray.begun) == 1:
            raise StoreError("has other settings")

    with installed(ray := Ray(machines(1, 1), [("whole", 0)] * 2, {})):
        monkeypatch.setattr(on_ray, "check_repeat", check)
        job = on_ray.Job(1, tmp_path / "1", settings(overrides.parse([])))
        on_ray.measure(ray.there, [], [job], Lines())
    assert job.is_whole
    assert [stream.at.host for stream in ray.begun] == ["host0", "host1"]


def test_a_node_that_others_keep_busy_is_told_once(monkeypatch):
    monkeypatch.setattr(on_ray, "_BUSY_S", 0.0)
    monkeypatch.setitem(FATES, "whole", [("begun", "", b""), *FATES["whole"]])
    ray = Ray(machines(1, 1), [("whole", 0)] * 2, {})
    free_after, play = 9, ray.wait

    def wait(streams: list[Stream], **asked: Any) -> tuple[list[Stream], None]:
        ready, none = play(streams, **asked)
        return [each for each in ready if each.number == 1 or ray.waits > free_after], none

    monkeypatch.setattr(ray, "wait", wait)
    told = Lines()
    with installed(ray) as folder:
        jobs = [on_ray.Job(number, folder / f"{number}") for number in (1, 2)]
        on_ray.measure(ray.there, [], jobs, told)
        assert all(job.is_whole for job in jobs)
    busy = "waits for the node, which is busy with other work of the cluster"
    assert told.lines.count((2, busy)) == 1


def test_a_file_that_vanishes_before_it_is_sent_costs_nothing(tmp_path, monkeypatch):
    kept = tmp_path / "cell.json"
    kept.write_text("{}")
    monkeypatch.setattr(node, "_there", lambda folder: iter([tmp_path / "rows.jsonl", kept]))
    [sent] = node._files(tmp_path, {}, settled=False)
    assert msgspec.msgpack.decode(sent) == ["file", "cell.json", b"{}"]
