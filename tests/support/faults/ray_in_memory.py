"""A Ray in memory whose nodes measure, fail and die as a test says. It has only what on_ray uses."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from serving_bench.harness.fleet import node, on_ray
from serving_bench.harness.fleet.nodes import Node


class RayError(Exception): ...


class UnserializableError(RayError): ...


class RaySystemError(RayError): ...


RUN = ("file", "run.json", b"{}")
# The last things that a node sends, by how the repeat ends there.
FATES: dict[str, list[Any]] = {
    "whole": [RUN, ("end", "0", b"run.json"), StopIteration()],
    "cells failed": [RUN, ("end", "1", b"run.json"), StopIteration()],
    "cannot measure": [("line", "no such weights", b""), ("end", "2", b""), StopIteration()],
    "is killed": [RUN, ("end", "-9", b"run.json"), StopIteration()],
    "breaks": [UnserializableError("OSError: no space left")],
    "dies": [RayError("the node has died")],
}


class Stream:
    """What a node sends while it measures a repeat, one item at a time."""

    def __init__(self, ray: "Ray", at: Node, number: int, fate: str, lines: int) -> None:
        self.ray, self.at, self.number, self.fate = ray, at, number, fate
        self.left = [*[("line", f"line {each}", b"") for each in range(lines)], *FATES[fate]]

    def __next__(self) -> Any:
        if self.at in self.ray.dead:  # an error once, then the end
            self.left = [RayError("the node has died") if self in self.ray.running else StopIteration()]
        said = self.left.pop(0)
        if not self.left and self in self.ray.running:
            self.ray.running.remove(self)
            self.ray.dead |= {self.at} if self.fate == "dies" else set()
        if isinstance(said, StopIteration):
            raise said
        return Reference(said)


class Reference:
    """A reference to what a node sent: bytes for a tuple, else the thing itself, or an error of Ray's."""

    def __init__(self, said: Any) -> None:
        self.said = msgspec.msgpack.encode(said) if isinstance(said, tuple) else said


class Ray(ModuleType):
    """Takes the place of the module `ray`.

    `fates`: how repeats end, in the order in which they begin, and after how many lines. `deaths`: by the
    number of a wait, the node that dies then.
    """

    def __init__(
        self, there: Sequence[Node], fates: Sequence[tuple[str, int]], deaths: dict[int, int]
    ) -> None:
        super().__init__("ray")
        self.there, self.fates, self.deaths = there, iter(fates), deaths
        self.dead: set[Node] = set()
        self.running: list[Stream] = []
        self.begun: list[Stream] = []
        self.cancelled: list[int] = []
        self.waits = 0
        self.own_is_alive = self.raylet_answers = True
        self.exceptions = SimpleNamespace(
            RayError=RayError, RaySystemError=RaySystemError, UnserializableException=UnserializableError
        )
        self.cloudpickle = SimpleNamespace()
        self.experimental = SimpleNamespace(get_object_locations=self._locations)

    def _locations(self, references: list[Reference]) -> dict[Reference, dict[str, Any]]:
        sizes = {each: len(each.said) if isinstance(each.said, bytes) else None for each in references}
        return {each: {"object_size": size} for each, size in sizes.items()}

    def nodes(self) -> list[dict[str, Any]]:
        own = {"NodeID": "own", "Alive": self.own_is_alive, "RayletSocketName": "raylet"}
        return [own, *({"NodeID": each.id, "Alive": each not in self.dead} for each in self.there)]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "own")

    def remote(self, function: object) -> Any:
        assert function is node.measured
        return SimpleNamespace(options=lambda **asked: SimpleNamespace(remote=self._begin(**asked)))

    def _begin(self, **asked: Any) -> Any:
        (at,) = (each for each in self.there if each.id == asked["scheduling_strategy"])
        assert (asked["num_cpus"], asked["num_gpus"], asked["max_retries"]) == (at.cpus, at.gpus, 0)

        def begin(words: Sequence[str], number: int) -> Stream:
            assert at.boot_id not in {each.at.boot_id for each in self.running}, "two at once on a machine"
            assert at not in self.dead
            stream = Stream(self, at, number, *next(self.fates))
            self.begun.append(stream)
            self.running.append(stream)
            return stream

        return begin

    def wait(
        self, streams: list[Stream], *, num_returns: int, timeout: float, fetch_local: bool
    ) -> tuple[list[Stream], None]:
        assert num_returns == 1
        assert not fetch_local, "its size must be known first"
        assert timeout > 0
        if self.waits in self.deaths:
            self.dead.add(self.there[self.deaths[self.waits] % len(self.there)])
        self.waits += 1
        return [streams[self.waits % len(streams)]], None

    def get(self, reference: Reference, timeout: float) -> Any:
        assert timeout >= 60
        if isinstance(reference.said, Exception):
            raise reference.said
        return reference.said

    def cancel(self, stream: Stream, *, force: bool = False) -> None:
        stream.left = [StopIteration()]
        self.cancelled.append(stream.number)


@contextmanager
def installed(ray: Ray) -> Iterator[Path]:
    """Let `import ray` give this one during the block, and yield an empty folder."""
    strategies = ModuleType("ray.util.scheduling_strategies")
    vars(strategies)["NodeAffinitySchedulingStrategy"] = lambda node_id, soft: node_id
    folder = Path(mkdtemp())
    with pytest.MonkeyPatch.context() as here:
        for module in (ray, ModuleType("ray.util"), strategies):
            here.setitem(sys.modules, module.__name__, module)
        here.setattr(on_ray, "answers", lambda path: ray.raylet_answers)
        yield folder
    shutil.rmtree(folder)


def machines(*raylets: int) -> list[Node]:
    """Return the nodes of machines that have these numbers of raylets."""
    return [
        Node(f"{m}.{r}", f"10.0.0.{m}", f"boot {m}", f"host{m}", 4.0 + r, 1.0)
        for m, count in enumerate(raylets)
        for r in range(count)
    ]


class Lines:
    """Collects the numbers of repeats and what is said of them."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def say(self, node: str, number: int, line: str) -> None:
        self.lines.append((number, line))


def played(ray: Ray, folder: Path, repeats: int) -> list[on_ray.Job]:
    jobs = [on_ray.Job(number, folder / f"{number}") for number in range(1, repeats + 1)]
    on_ray.measure(ray.there, ["load.concurrency=1"], jobs, Lines())
    return jobs
