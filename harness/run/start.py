"""Bring up one start's server (a process, a container, or a running one), watch it, and keep its record."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serving_bench.engines import API_PRICES, ENGINES, launch_of
from serving_bench.harness import contracts
from serving_bench.harness.describe.ideal import SentTo, nothing_sent
from serving_bench.harness.install import builds, install
from serving_bench.harness.load.answer import APIS, openai
from serving_bench.harness.load.answer.api import Api
from serving_bench.harness.plan.terms import Device, expected
from serving_bench.harness.run.watch import Observer, Site, Watch, watch_memory
from serving_bench.harness.sampling import environment, gpu, host
from serving_bench.harness.sampling.guard import Seen
from serving_bench.harness.sampling.sampling import Memory
from serving_bench.harness.servers import container, probe, server
from serving_bench.harness.servers.scrape import read_said
from serving_bench.harness.store.store import Kept, StartRecord
from serving_bench.scenarios import has_tools

_log = logging.getLogger(__name__)
_PROMPT_TIMEOUT_S = 60.0
_MEMORY_BACK_S = {"host": 5.0, "device": 10.0}


@dataclass
class Serving:
    """A start whose server runs.

    `process` is None for a server that bench did not start. `sent`: what its prefix cache may hold.
    `gone`: how many requests were left, cancelled or timed out.
    """

    start: contracts.PlannedStart
    spec: contracts.LaunchSpec
    process: server.Server | None
    watch: Watch
    record: Kept[StartRecord]
    sent: SentTo = field(default_factory=nothing_sent)
    gone: int = 0

    @property
    def engine(self) -> contracts.Engine:
        return ENGINES[self.start.deployment.engine]

    @property
    def key(self) -> str | None:
        return key_of(self.start.deployment)

    def check(self) -> None:
        """Raise ServerError if the server has exited."""
        if self.process:
            server.check_alive(self.process)

    def seen(self, since_ns: int, until_ns: int) -> Seen:
        """Return the samples from `since_ns` to before `until_ns`."""
        return self.watch.seen(since_ns, until_ns)


def key_of(deployment: contracts.Deployment) -> str | None:
    """Return the API key for a running server, from the environment. A server that bench starts gets none."""
    return os.environ.get(deployment.terms.api_key_env) if deployment.terms.base_url else None


def api_of(deployment: contracts.Deployment) -> Api:
    return APIS[ENGINES[deployment.engine].api]


def attach_spec(deployment: contracts.Deployment) -> contracts.AttachSpec | None:
    """Return where the server of a deployment already runs; None if bench starts it."""
    url, names = deployment.terms.base_url, ENGINES[deployment.engine].names
    return contracts.AttachSpec(api_of(deployment).base_of(url), deployment.model, names) if url else None


def new_record(start: contracts.PlannedStart, site: Site) -> Kept[StartRecord]:
    deployment, engine = start.deployment, ENGINES[start.deployment.engine]
    weights, draft = map(site.provisions.weights_of, (deployment, deployment.draft))
    device: Device = "cuda" if builds.uses_devices(deployment) and site.devices else "cpu"
    shape = weights.facts if weights else None
    record = StartRecord(
        name=start.name,
        index=start.index,
        deployment=deployment,
        repeat=start.repeat,
        status="running",
        attached=deployment.terms.base_url is not None,
        weights={**_facts_of(weights), **{f"draft_{key}": value for key, value in _facts_of(draft).items()}},
        weights_notes=weights.notes if weights else (),
        unmatched=dict(engine.unmatched(deployment)),
        forces_length=engine.forces_length(deployment),
        model_facts=shape,
        api_prices=API_PRICES.get(deployment.model, ()),
        memory_expected=expected(deployment, shape, device, draft.facts if draft else None),
        is_for_quality=not start.cells,
    )
    return Kept(site.run_dir / "starts" / start.name / "start.json", record)


def _facts_of(weights: contracts.WeightsFile | None) -> dict[str, contracts.Scalar]:
    if weights is None:
        return {}
    return {
        "file": weights.path.name,
        "size_bytes": weights.size_bytes,
        "sha256": weights.sha256,
    }


def wait_for_memory(record: Kept[StartRecord]) -> None:
    """Wait until a stopped server's memory is free again, and record whether it is. Matters after a crash."""
    start = record.record
    if start.stopped_ns is None or start.baseline_bytes is None:
        return
    used, timeout_s = _used_memory(start.devices), _MEMORY_BACK_S[start.memory_kind]
    is_back, after_bytes = used.wait(start.baseline_bytes, timeout_s)
    record.update(after_bytes=after_bytes, returned_to_baseline=is_back)


def _used_memory(devices: Sequence[int]) -> Memory:
    return gpu.memory(devices) if devices else host.memory()


@contextmanager
def bring_up(start: contracts.PlannedStart, site: Site, record: Kept[StartRecord]) -> Iterator[Serving]:
    """Run the start's server for a `with` block, watched from its spawn on. It need not be ready yet."""
    devices = site.devices if builds.uses_devices(start.deployment) else ()
    used = _used_memory(devices)
    is_attached = start.deployment.terms.base_url is not None
    idle = site.guard.before_start(start.name, used, devices, is_attached=is_attached)
    spec = _launch_spec(start, site, record.path.parent, devices)  # after the wait: it takes a free port
    record.update(
        memory_kind=used.kind,
        devices=tuple(devices),
        baseline_bytes=idle.used_bytes,
        idle_power_w=idle.power_w,
        idle_power_note=idle.note,
    )
    with (
        _launched(start.deployment, spec, site, record) as process,
        watch_memory(process.pid if process else None, devices, record) as watch,
    ):
        watch.mark("spawned")
        yield Serving(start, spec, process, watch, record)


def _launch_spec(
    start: contracts.PlannedStart, site: Site, scratch: Path, devices: Sequence[int]
) -> contracts.LaunchSpec:
    deployment = start.deployment
    if attached := attach_spec(deployment):
        return attached
    weights = site.provisions.weights_of(deployment)
    installed = site.provisions.environment_of(deployment)
    place = contracts.Place(
        python=installed.python if installed else None,
        weights=weights.path if weights else None,
        weights_sha256=weights.sha256 if weights else None,
        host="127.0.0.1",
        port=server.free_port(),
        scratch=scratch,
        program=installed.program if installed else None,
        devices=tuple(devices),
        facts=weights.facts if weights else None,
        chat_template=weights.chat_template if weights else None,
        draft=site.provisions.weights_of(deployment.draft),
        has_tools=any(has_tools(cell.scenario) for cell in start.cells),
        adapters=site.provisions.adapters_of(deployment),
        cache=install.compiled_dir(site.cache_dir, (installed and installed.name) or deployment.engine),
    )
    spec = launch_of(ENGINES[deployment.engine], deployment, place)
    if not isinstance(spec, contracts.NativeSpec) or not devices:
        return spec
    # Makes CUDA number the devices as NVML does.
    visible = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
    return replace(spec, environment={**visible, **spec.environment})


def hints_for(
    deployment: contracts.Deployment, weights: contracts.WeightsFile | None
) -> list[contracts.Hint]:
    """Return the engine's hints. For the user's own weights they have the remedies for such files."""
    hints = ENGINES[deployment.engine].hints
    if weights is None or weights.path != Path(deployment.model).expanduser().absolute():
        return list(hints)
    return [replace(hint, remedy=hint.of_own or hint.remedy) for hint in hints]


@contextmanager
def _launched(
    deployment: contracts.Deployment, spec: contracts.LaunchSpec, site: Site, record: Kept[StartRecord]
) -> Iterator[server.Server | None]:
    """Start the server, without any API key of this environment; yield None for one that already runs."""
    if isinstance(spec, contracts.AttachSpec):
        yield None
        return
    record_fields: dict[str, Any] = {
        "engine": deployment.label,
        "log_path": record.path.with_name("server.log"),
        "state_dir": site.state_dir,
        "hints": hints_for(deployment, site.provisions.weights_of(deployment)),
    }
    if isinstance(spec, contracts.ContainerSpec):
        image = container.image_facts(spec.image)  # a tag may have moved since the run began
        record.update(image=image, version=image.get("image_version"))
        started = container.running_container(spec, **record_fields)
    else:
        installed = site.provisions.environment_of(deployment)
        versions = installed.versions if installed else {}
        record.update(
            version=builds.version_of(deployment.engine, builds.build_of(deployment).program, versions)
        )
        # The variable of a key may have any name.
        keys = {deployment.terms.api_key_env, *contracts.secret_names(os.environ)}
        started = server.running_server(spec, **record_fields, without=sorted(keys))
    running: server.Server | None = None
    try:
        with started as running:
            record.update(
                spawned_ns=running.process.spawned_ns,
                pid=running.pid,
                argv=contracts.masked_argv(running.argv),
                environment=environment.of_server(
                    spec.environment, inherits=isinstance(spec, contracts.NativeSpec)
                ),
            )
            yield running
    finally:
        if running and (code := running.process.ended) is not None:
            record.update(stopped_ns=time.monotonic_ns(), exit_code=code if code >= 0 else None)


def wait_ready(up: Serving, site: Site) -> None:
    """Block until the server is ready, then record what it says about itself. Raises ServerError."""
    if up.process is None:
        up.record.update(ready_ns=time.monotonic_ns())
    else:
        _wait_started(up, up.process, site)
    up.watch.mark("ready")
    up.watch.ask_server(up.spec.base_url, contracts.METRICS_PATH, up.engine.metrics, up.key)
    site.observer.start_ready(up.start, up.record.record.launch_s)
    resolved, problems = _ask(up)
    for problem in problems:
        _log.warning(problem)
    version = resolved.terms.get("engine_version") or up.record.record.version
    asked_for = vars(up.start.deployment.terms)
    later = {
        term: why
        for term, why in resolved.unmatched.items()
        if why is None or asked_for.get(term) not in (None, resolved.terms.get(term))
    }
    prompt_tokens, repeats = dict[str, int](), None
    # The counts show whether engines use the same chat template. Servers with another API may charge for it.
    if api_of(up.start.deployment) is openai.API:
        where, limit_s = (up.spec.base_url, up.spec.served_model), _PROMPT_TIMEOUT_S
        prompt_tokens = probe.count_prompt_tokens(*where, timeout_s=limit_s, key=up.key)
        repeats = probe.repeats_answers(*where, timeout_s=limit_s, key=up.key)
    up.record.update(
        resolved=dict(resolved.terms),
        unmatched={term: why for term, why in {**up.record.record.unmatched, **later}.items() if why},
        memory_said=dict(resolved.memory),
        version=None if version is None else str(version),
        prompt_tokens=prompt_tokens,
        repeats_answers=repeats,
    )


def _ask(up: Serving) -> tuple[contracts.Said, list[str]]:
    return read_said(up.engine, up.spec.base_url, up.record.path.with_name("server.log"), up.key)


@dataclass(frozen=True)
class _Starting:
    """Marks and shows the stages of a start-up."""

    up: Serving
    observer: Observer

    def reached(self, stage: str) -> None:
        self.up.watch.mark(stage)
        self.observer.start_stage(self.up.start, stage)

    def waits(self, age_s: float, problem: str) -> None:
        self.observer.line(f"{self.up.start.name}: still starting after {age_s:.0f} s ({problem})")


def _wait_started(up: Serving, process: server.Server, site: Site) -> None:
    starting = _Starting(up, site.observer)
    log_path = up.record.path.with_name("server.log")
    with server.watched_stages(log_path, up.engine.stages, starting) as stages:
        try:
            instants = server.wait_ready(process, up.start.deployment.terms.start_timeout_s, starting)
        finally:
            stages.look()
            up.record.update(stages=stages.reached)
    up.record.update(ready_ns=instants.pop("ready"), stages={**stages.reached, **instants})


def look_after_leaving(up: Serving, site: Site) -> float:
    """Measure, once for a deployment that clients left, for how long short answers then wait.

    Return the time that it took. Not with a key: its owner may pay for each token.
    """
    label, began_s = up.start.deployment.label, time.monotonic()
    if (
        up.gone
        and not up.key
        and label not in site.seen_leaving
        and api_of(up.start.deployment) is openai.API
    ):
        site.observer.line(f"{up.start.name}: clients left: for how long do others wait?")
        up.watch.mark("leaving")
        clients = max(cell.load.concurrency or 1 for cell in up.start.cells) if up.start.cells else 1
        where, limit_s = (up.spec.base_url, up.spec.served_model), _PROMPT_TIMEOUT_S
        busy_s = probe.busy_after_leaving_s(*where, clients=clients, timeout_s=limit_s, key=up.key)
        if busy_s is not None:
            site.seen_leaving.add(label)
            up.record.update(busy_after_leaving_s=busy_s)
    return time.monotonic() - began_s


def hear_out(up: Serving) -> None:
    """Read what the server says of its memory after its load. Raises ServerError if it died meanwhile."""
    up.check()
    # Some memory is allocated only under load, and the log tells of it only then.
    up.record.update(memory_said=dict(_ask(up)[0].memory))
