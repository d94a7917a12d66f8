"""What a start launches: an engine's server as a process or a container, or a server that runs already.

Engines are reached through their dict.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engines import ENGINES
from harness.contracts import (
    AttachSpec,
    ContainerSpec,
    Deployment,
    LaunchSpec,
    NativeSpec,
    Place,
    PlannedStart,
    masked_argv,
)
from harness.install.builds import build_of, version_of
from harness.install.install import compiled_dir
from harness.run.site import Site
from harness.sampling import environment
from harness.servers import probe, server
from harness.servers.container import running_container
from harness.store.store import Kept, StartRecord

_HOST = "127.0.0.1"


def key_of(deployment: Deployment) -> str | None:
    """Return the API key from the environment for a running server. One that bench starts gets none."""
    return os.environ.get(deployment.terms.api_key_env) if deployment.terms.base_url else None


def launch_spec(start: PlannedStart, site: Site, scratch: Path, devices: Sequence[int]) -> LaunchSpec:
    deployment = start.deployment
    if deployment.terms.base_url:
        return AttachSpec(deployment.terms.base_url.rstrip("/"), deployment.model)
    weights = site.provisions.weights_of(deployment)
    installed = site.provisions.environment_of(deployment)
    place = Place(
        python=installed.python if installed else None,
        weights=weights.path if weights else None,
        host=_HOST,
        port=server.free_port(),
        scratch=scratch,
        program=installed.program if installed else None,
        devices=tuple(devices),
        facts=weights.facts if weights else None,
        chat_template=weights.chat_template if weights else None,
        cache=compiled_dir(site.cache_dir, (installed and installed.name) or deployment.engine),
    )
    spec = ENGINES[deployment.engine].launch(deployment, place)
    if not isinstance(spec, NativeSpec) or not devices:
        return spec
    # CUDA is to count the devices as NVML does.
    shown = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
    return replace(spec, environment={**shown, **spec.environment})


@contextmanager
def launched(
    start: PlannedStart, spec: LaunchSpec, site: Site, record: Kept[StartRecord]
) -> Iterator[server.Server | None]:
    """Start the server, which gets no API key of ours, or give None for one that runs already.

    Raises UserError if that one does not answer.
    """
    deployment, provisions = start.deployment, site.provisions
    if isinstance(spec, AttachSpec):
        probe.probe_attached(spec, key_of(deployment))
        yield None
        return
    log_path, hints = record.path.with_name("server.log"), ENGINES[deployment.engine].hints
    image: Mapping[str, str | None] = {}
    if isinstance(spec, ContainerSpec):
        image = provisions.images.get(spec.image, {})
        version = image.get("image_version")
        started = running_container(
            spec, engine=deployment.label, log_path=log_path, state_dir=site.state_dir, hints=hints
        )
    else:
        installed = provisions.environment_of(deployment)
        versions = installed.versions if installed else {}
        version = version_of(deployment.engine, build_of(deployment).program, versions)
        started = server.running_server(
            spec,
            engine=deployment.label,
            log_path=log_path,
            state_dir=site.state_dir,
            hints=hints,
            without=(deployment.terms.api_key_env,),
        )
    running: server.Server | None = None
    try:
        with started as running:
            record.update(
                spawned_ns=running.process.spawned_ns,
                pid=running.pid,
                argv=masked_argv(running.argv),
                environment=environment.of_server(spec.environment, inherits=isinstance(spec, NativeSpec)),
                image=image,
                version=version,
            )
            yield running
    finally:
        if running and (code := running.process.ended) is not None:
            record.update(stopped_ns=time.monotonic_ns(), exit_code=code if code >= 0 else None)
