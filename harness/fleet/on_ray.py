"""Distribute the repeats of a run over the nodes of a Ray cluster, and store the files that they send.

A machine measures one repeat at a time. A repeat is the block of the statistics, so one node measures all of
it. If its node is lost, it is measured again, once, on another node.
"""

import logging
import os
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from serving_bench.harness.contracts import inert
from serving_bench.harness.errors import BenchError, CellError, Interrupted, UserError
from serving_bench.harness.fleet import node
from serving_bench.harness.fleet.nodes import Facts, Node, fit
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store import checksums
from serving_bench.harness.store.merge import check_repeat
from serving_bench.harness.store.named_files import RUN_FILE
from serving_bench.harness.whole_files import check_room, disk_size

_CONNECT_S, _FACTS_S = 5.0, 60.0
# Nothing is fetched: how large an answer is must be known first.
# How long a raylet may take to take a connection.
_ANSWER_S = 5.0
_WAIT: dict[str, Any] = {"num_returns": 1, "timeout": 1.0, "fetch_local": False}
# A node that has not begun after this time is busy with other work of the cluster.
_BUSY_S = 60.0
# The limit for one part of a file: if this machine's own node is lost, Ray would wait for ever.
_PART_S = 300.0
# The limit for a repeat, in which each answer counts as a block at least: 500,000 files, as for any run.
_MOST_BYTES, _BLOCK_BYTES, _LEFT_BYTES = 8 << 30, 1 << 14, 256 << 20  # the last: what stays free on the disk
# What a strange answer leads to; a file where there is a folder to the last ones.
_STRANGE = (BenchError, ValueError, FileExistsError, NotADirectoryError, IsADirectoryError)
_OWN_LOST = "--on ray: the cluster's node on this machine was lost, so nothing comes here"


class Show(Protocol):
    """Shows what happens on the nodes."""

    def say(self, node: str, number: int, line: str) -> None:
        """Show a line about a repeat on the node with this name."""


@dataclass
class Job:
    """Repeat `number`, from 1, whose files go to `folder` and must be of a run with the settings, if any.

    `lost_on` are the nodes that were lost while they measured it. It ends with bench's exit code and last
    line, or with a problem.
    """

    number: int
    folder: Path
    settings: Settings | None = None
    lost_on: list[Node] = field(default_factory=list)
    exit_code: int | None = None
    last_line: str = ""
    problem: str | None = None
    given_s: float | None = None  # when a node was asked; None once it has begun or was reported as busy
    sent_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        """Return whether bench measured the whole repeat, even if cells failed."""
        return self.exit_code in (0, 1) and (self.folder / RUN_FILE).is_file()

    def check(self) -> None:
        """Raise BenchError if the folder has anything else than this repeat."""
        if self.settings:
            check_repeat(self.folder, self.number - 1, self.settings)

    def begin(self) -> None:
        """Delete what an earlier node sent of this repeat, and note the time."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_suffix(".part").unlink(missing_ok=True)
        self.exit_code, self.last_line, self.problem, self.sent_bytes = None, "", None, 0
        self.given_s = time.monotonic()


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Join a cluster during the block, in which stdout goes to stderr. Raises UserError if no Ray answers."""
    # Stdout is for the run's result, and a thread of Ray's prints the log of a raylet that dies, even late.
    with redirect_stdout(sys.stderr), _written_to(2, 1):
        ray = _connected(address)
        try:
            yield ray
        finally:
            ray.shutdown()


def nodes_of(ray: Any, device: str) -> Sequence[Node]:
    """Return the nodes of the cluster that can measure on the device.

    Raises UserError if a node cannot run bench, and as nodes.fit.
    """
    alive = [each for each in ray.nodes() if each["Alive"]]
    tasks = [(each, ray.remote(node.facts).options(**_at(each["NodeID"])).remote(device)) for each in alive]
    nodes = {}
    for each, task in tasks:
        address, there = each["NodeManagerAddress"], each["Resources"]
        try:
            ray.wait([task], **{**_WAIT, "timeout": _FACTS_S})
            facts = _answer(ray, task, Facts, _FACTS_S, _BLOCK_BYTES)
        except (ray.exceptions.RayError, BenchError) as error:
            message = f"the node at {address} cannot run bench ({_last_line(error)}); install it there"
            raise UserError(message) from error
        joined = Node(
            each["NodeID"], address, facts["boot_id"], facts["host"],
            there.get("CPU", 0.0), there.get("GPU", 0.0),
        )  # fmt: skip
        nodes[joined] = facts
    return fit(nodes, device, node.own_version())


def _connected(address: str) -> Any:
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    if where != "auto":
        host, _, port = where.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise UserError(f"--on ray:{where}: not an address; give that of the cluster's head, HOST:PORT")
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            message = f"--on ray:{where}: no Ray answers there ({why}); `ray start --head` starts one"
            raise UserError(message) from error
    # The number of attempts to join, of up to 36 s each; Ray's default is 20. Ray reads it on import.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    try:
        import ray
    except ImportError as error:
        message = "--on ray: Ray is not installed; `pip install '.[ray]'` here and on all nodes"
        raise UserError(message) from error
    # Ray unpickles whatever a node sends that is not bytes, which runs code of the node. Now it fails to.
    ray.cloudpickle.loads = None
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with open(os.devnull, "w") as nowhere, _written_to(nowhere.fileno(), 2):
            ray.init(address=where, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"--on ray: cannot join the cluster at {where} ({first_line}); give ray:HOST:PORT of its "
            "head, and RAY_AUTH_MODE with the token if it asks for one"
        ) from error
    return ray


@contextmanager
def _written_to(target: int, descriptor: int) -> Iterator[None]:
    """Let what is written to a descriptor during the block, also by Ray's core, go where `target` goes."""
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def _at(node_id: str) -> dict[str, Any]:
    """Return the options of a task that runs on this node, once, and takes no processor."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}


def _answer(ray: Any, reference: Any, kind: Any, limit_s: float, most: int = 2 * node.PART_BYTES) -> Any:
    """Fetch what a node sent. Raises Ray's errors, and BenchError for anything but an answer of this kind."""
    size = ray.experimental.get_object_locations([reference])[reference].get("object_size") or 0
    if size > most:
        raise BenchError(f"sent {disk_size(size)} at once, more than {disk_size(most)}")
    try:
        return msgspec.msgpack.decode(ray.get(reference, timeout=limit_s), type=kind)
    except (ray.exceptions.RaySystemError, ValueError, TypeError, RecursionError) as error:
        why = error if isinstance(error, ValueError) else "not bytes"
        raise BenchError(f"sent what bench does not send ({why})") from error


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2][:500]


def measure(nodes: Sequence[Node], words: Sequence[str], jobs: Sequence[Job], show: Show) -> None:
    """Measure each repeat on a node, into its folder. The jobs record how each went, also if this raises.

    Raises OSError if files cannot be written here, CellError if this machine's own node is lost, and
    Interrupted.
    """
    try:
        _play(jobs, nodes, words, show)
    except SystemError as error:  # Ray's core wraps what a signal handler raises inside it
        if isinstance(error.__cause__, Interrupted):
            raise error.__cause__ from None
        raise


def _play(jobs: Sequence[Job], nodes: Sequence[Node], words: Sequence[str], show: Show) -> None:
    """Give jobs to nodes until all have ended: one at a time to a machine, and an unfinished one to another.

    A node that failed at one job gets no more: it would soon fail at all of them.
    """
    import ray

    waiting, running = list(jobs), dict[Any, tuple[Job, Node]]()
    used, unable = Counter[str](), set[str]()
    node_id = ray.get_runtime_context().get_node_id()
    try:
        while waiting or running:
            alive = {each["NodeID"]: each for each in ray.nodes() if each["Alive"]}
            _check_own(alive.get(node_id))
            left = [each for each in nodes if each.id in alive.keys() - unable]
            for job, at in _next(waiting, left, [each for _, each in running.values()], used):
                waiting.remove(job)
                if at is None:
                    job.problem = job.problem or "no node is left for it"
                    continue
                job.begin()
                show.say(at.name, job.number, "asks for the whole node")
                used[at.id] += 1
                # The whole node, so that Ray runs nothing else there.
                whole = {"num_returns": "streaming", "num_cpus": at.cpus, "num_gpus": at.gpus}
                task = ray.remote(node.measured).options(**{**_at(at.id), **whole})
                running[task.remote(words, job.number)] = job, at
            ready, _ = ray.wait(list(running), **_WAIT) if running else ([], [])
            for stream in ready:
                _check_own(alive[node_id])
                job, at = running[stream]
                if _take(ray, stream, job, at, show):
                    continue
                del running[stream]
                if len(job.lost_on) > 1:
                    job.problem = "its node was lost twice"
                elif not job.is_whole:
                    waiting.append(job)
                    if at not in job.lost_on:
                        unable.add(at.id)
                        code = f"bench ended with exit code {job.exit_code}"
                        job.problem = job.problem or f"{at.name}: {job.last_line or code}"
            _show_busy(running.values(), show)
    except OSError as error:
        # Ray's own, of its connection to the node here: one of a file has a number, and is no broken pipe.
        if error.errno is None or isinstance(error, ConnectionError):
            running.clear()
            raise CellError(_OWN_LOST) from error
        raise
    except CellError:
        running.clear()  # Ray ends tasks that have lost their driver
        raise
    finally:
        _cancel(ray, running)


def _check_own(node: Mapping[str, Any] | None) -> None:
    """Raise CellError if the node here is lost: Ray ends a process silently that then asks for an object.

    The cluster's list of nodes is behind by seconds; the node's own socket is not.
    """
    if node is None or not answers(node["RayletSocketName"]):
        raise CellError(_OWN_LOST)


def answers(path: str) -> bool:
    """Return whether a process listens at this Unix socket."""
    with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):  # of a path that is too long, too
        asking.settimeout(_ANSWER_S)
        return asking.connect_ex(path) == 0
    return False


def _show_busy(running: Iterable[tuple[Job, Node]], show: Show) -> None:
    for job, at in running:
        if job.given_s is not None and time.monotonic() - job.given_s > _BUSY_S:
            show.say(at.name, job.number, "waits for the node, which is busy with other work of the cluster")
            job.given_s = None


def _cancel(ray: Any, running: Iterable[Any]) -> None:
    """End the running repeats in order: the servers first, then the folder on the node. Blocks until then."""
    left, deadline_s = set(running), time.monotonic() + node.GRACE_S
    for stream in left:
        ray.cancel(stream)
    while left and time.monotonic() < deadline_s:
        ready, _ = ray.wait(list(left), **_WAIT)
        for stream in ready:
            try:
                next(stream)
            except (StopIteration, ray.exceptions.RayError):
                left.discard(stream)
    for stream in left:
        ray.cancel(stream, force=True)


def _next(
    waiting: Iterable[Job], nodes: Sequence[Node], busy: Iterable[Node], used: Mapping[str, int]
) -> Iterator[tuple[Job, Node | None]]:
    """Yield each job that can begin with its node, and with None each job that no node is left for."""
    taken = {each.boot_id for each in busy}
    for job in list(waiting):
        able = [each for each in nodes if each not in job.lost_on]
        free = [each for each in able if each.boot_id not in taken]
        if free:
            chosen = min(free, key=lambda each: used[each.id])
            taken.add(chosen.boot_id)
            yield job, chosen
        elif not able:
            yield job, None


def _take(ray: Any, stream: Any, job: Job, at: Node, show: Show) -> bool:
    """Store the next item that a node has sent. Return False if there is none left; the job says why."""
    try:
        kind, text, contents = _answer(ray, next(stream), node.Sent, _PART_S)
        job.given_s = None
        job.sent_bytes += max(_BLOCK_BYTES, len(contents))
        if job.sent_bytes > _MOST_BYTES or job.exit_code is not None:
            raise BenchError(f"sent more than {disk_size(_MOST_BYTES)}, or something after the end")
        if kind == "line":
            job.last_line = text[:_BLOCK_BYTES]
            show.say(at.name, job.number, job.last_line)
        elif kind == "end":
            job.exit_code = int(text)
            _keep_alone(job.folder, set(contents.decode().split(node.APART)))
            if job.is_whole:
                job.check()
        elif kind in ("part", "file"):
            _store(job.folder, text, contents, is_whole=kind == "file")
    except StopIteration:
        return False
    except (*_STRANGE, ray.exceptions.UnserializableException) as error:  # the last: what was raised there
        _cancel(ray, [stream])
        job.exit_code, job.problem = None, f"{at.name}: {_last_line(error)}"
        return False
    except ray.exceptions.RayError:
        job.lost_on.append(at)
        show.say(at.name, job.number, "the node was lost")
        return False
    return True


def _store(folder: Path, name: str, contents: bytes, *, is_whole: bool) -> None:
    """Append bytes to the file that is being received, and name it if they are its last. Parts never mix."""
    path, part = folder / name, folder.with_suffix(".part")
    if not checksums.may_hold(name):
        raise BenchError(f"sent a file that is not of its run: {inert(name)[:200]}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_room(folder, len(contents) + _LEFT_BYTES, "a repeat", "--output DIR")
    with part.open("ab") as file:
        file.write(contents)
    if is_whole:
        part.replace(path)


def _keep_alone(folder: Path, names: Collection[str]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()
