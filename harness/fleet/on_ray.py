"""Give the repeats of a run to the nodes of a Ray cluster, one at a time to a machine, and keep what is sent.

A repeat is the block of the statistics, so it is measured whole on one node. One whose node was lost is
measured again, once, on another.
"""

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from harness.contracts import inert
from harness.errors import BenchError, UserError
from harness.fleet import node
from harness.whole_files import write_whole

_CONNECT_S, _FACTS_S, _POLL_S = 5.0, 60.0, 1.0
# Which node says which line of which repeat.
Tell = Callable[[str, int, str], None]


@dataclass(frozen=True)
class Node:
    """A raylet. Nodes of one `boot_id` are one machine: two repeats at once would disturb each other."""

    id: str
    address: str
    boot_id: str
    host: str
    cpus: float
    gpus: float

    @property
    def name(self) -> str:
        return f"{self.host} ({self.address}, {self.id[:6]})"


@dataclass
class Job:
    """Repeat `number`, from 1, whose files go to `folder`; the nodes that it was lost on; how it ended: with
    bench's exit code and last line, or a problem."""

    number: int
    folder: Path
    lost_on: list[Node] = field(default_factory=list)
    exit_code: int | None = None
    last_line: str = ""
    problem: str | None = None


def nodes_of(address: str | None, device: str) -> list[Node]:
    """Connect to the cluster and return its nodes that can measure on the device.

    Raises UserError where no Ray answers, nobody checks who connects, bench differs, or no node is fit.
    """
    ray = _connected(address)
    alive = [each for each in ray.nodes() if each["Alive"]]
    addresses = [each["NodeManagerAddress"] for each in alive]
    is_open = any(not ip_address(each).is_loopback for each in addresses)
    if is_open and os.environ.get("RAY_AUTH_MODE") != "token":
        raise UserError(
            f"--on ray: the cluster listens on {', '.join(sorted(set(addresses)))} and may let anyone there "
            "run programs; start it with RAY_AUTH_MODE=token and set that here"
        )
    asked = {each["NodeID"]: _task(node.facts, each["NodeID"]).remote(device) for each in alive}
    fit, unfit = list[Node](), dict[str, str]()
    for each in alive:
        facts = _facts(ray, asked[each["NodeID"]], each["NodeManagerAddress"])
        resources = each["Resources"]
        found = Node(
            each["NodeID"], each["NodeManagerAddress"], facts["boot_id"], facts["host"],
            resources.get("CPU", 0.0), resources.get("GPU", 0.0),
        )  # fmt: skip
        ours = node.facts(device)["bench"]
        if facts["bench"] != ours:
            raise UserError(
                f"{found.name} has bench {facts['bench']}, here is {ours}; install the same on all nodes"
            )
        if facts["unfit"]:
            unfit[facts["unfit"]] = found.name
        else:
            fit.append(found)
    if not fit:
        said = "; ".join(f"{name}: {why}" for why, name in unfit.items())
        raise UserError(f"device={device}: no node of the cluster has it: {said}")
    return fit


def _connected(address: str | None) -> Any:
    asked = address or os.environ.get("RAY_ADDRESS") or "auto"
    if asked != "auto":
        host, _, port = asked.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise UserError(f"--on ray:{asked}: is no address; give that of the cluster's head, HOST:PORT")
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--on ray:{asked}: no Ray answers there ({error})") from error
    try:
        import ray
    except ImportError as error:
        said = "--on ray: Ray is not installed; `pip install '.[ray]'` here and on all nodes"
        raise UserError(said) from error
    try:
        ray.init(address=asked, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(f"--on ray: no Ray answers at {asked} ({first_line}); give ray:HOST:PORT") from error
    return ray


def _task(function: Callable[..., Any], node_id: str, **options: Any) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    whole = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there, **options}
    return ray.remote(function).options(**whole)


def _facts(ray: Any, asked: Any, address: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ray.get(asked, timeout=_FACTS_S)
    except ray.exceptions.RayError as error:
        first_line = str(error).strip().splitlines()[-1]
        raise UserError(f"the node at {address} cannot run bench ({first_line}); install it there") from error
    return found


def measure(nodes: Sequence[Node], words: Sequence[str], parts: Mapping[int, Path], tell: Tell) -> list[Job]:
    """Measure each repeat on a node, into its folder. Return how each went."""
    jobs = [Job(number, folder) for number, folder in parts.items()]
    # Ray's own thread prints the log of a raylet that dies; stdout is for the run's result.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        _play(jobs, nodes, words, tell)
    return jobs


def _play(jobs: Sequence[Job], nodes: Sequence[Node], words: Sequence[str], tell: Tell) -> None:
    """Give jobs to nodes until all have ended: one at a time to a machine, a lost one to another node."""
    import ray

    waiting, running = list(jobs), dict[Any, tuple[Job, Node]]()
    used = Counter[str]()
    try:
        while waiting or running:
            alive = {each["NodeID"] for each in ray.nodes() if each["Alive"]}
            left = [each for each in nodes if each.id in alive]
            for job, at in _next(waiting, left, [each for _, each in running.values()], used):
                waiting.remove(job)
                if at is None:
                    job.problem = job.problem or "no node is left for it"
                    continue
                used[at.id] += 1
                # All of the node, so that Ray runs nothing else there.
                task = _task(
                    node.measured, at.id, num_returns="streaming", num_cpus=at.cpus, num_gpus=at.gpus
                )
                running[task.remote(words, job.number)] = job, at
            if running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_S)
                for stream in ready:
                    job, at = running[stream]
                    if _take(ray, stream, job, at, tell):
                        continue
                    del running[stream]
                    if job.lost_on[1:]:
                        job.problem = "its node was lost twice"
                    elif job.exit_code is None and not job.problem:
                        waiting.append(job)
    finally:
        for stream in running:
            ray.cancel(stream, force=True)


def _next(
    waiting: Iterable[Job], nodes: Sequence[Node], busy: Iterable[Node], used: Mapping[str, int]
) -> Iterator[tuple[Job, Node | None]]:
    """Yield jobs that can begin, each with its node; with None one for which there is no node any more."""
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


def _take(ray: Any, stream: Any, job: Job, at: Node, tell: Tell) -> bool:
    """Keep the next thing that a node has sent; False: there is nothing more, and the job says why."""
    try:
        kind, text, contents = ray.get(next(stream))
    except StopIteration:
        return False
    except ray.exceptions.RayTaskError as error:
        job.problem = str(error).strip().splitlines()[-1]
        return False
    except ray.exceptions.RayError:
        job.lost_on.append(at)
        tell(at.name, job.number, "the node was lost")
        return False
    if kind == "file":
        path = job.folder / text
        if not path.resolve().is_relative_to(job.folder.resolve()):
            raise BenchError(f"{at.name} sent a file that is not of its run: {inert(text)}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, contents, lasts=False)
    elif kind == "line":
        job.last_line = text
        tell(at.name, job.number, text)
    elif kind == "end":
        job.exit_code = int(text)
    return True
