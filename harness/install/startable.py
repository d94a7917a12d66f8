"""Which deployments this machine can start, whatever gets installed. Installs nothing and starts nothing.

Knows no engine: asks each engine's own file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from engines import ENGINES
from harness.contracts import ContainerSpec, Deployment, InstallSpec, LaunchSpec, Place, Reason
from harness.errors import UserError
from harness.install.builds import Build, build_of, check_own, is_process, uses_devices
from harness.plan.candidates import candidates
from harness.sampling import gpu
from harness.settings.config import Settings


def select_devices(device: str) -> tuple[int, ...]:
    """Return the indices of the devices to use; `auto` is the first one, or none where there is none."""
    if device != "auto":
        return gpu.select(device)
    return () if isinstance(gpu.devices(), Reason) else (0,)


def device_of(settings: Settings) -> str:
    """Return the run's `device`: `cpu` instead of `auto` where nothing asked for could use another."""
    if settings.device != "auto":
        return settings.device
    return "auto" if any(_could_use_device(each) for each in candidates(settings)) else "cpu"


def _could_use_device(deployment: Deployment) -> bool:
    """Return False for a server without weights as well: it computes nothing, wherever it is."""
    if deployment.terms.base_url:
        return True
    return uses_devices(deployment) and ENGINES[deployment.engine].weights(deployment) is not None


def why_not_on(devices: Sequence[int]) -> Callable[[Deployment], Reason | None]:
    """Return a function that says why a deployment cannot be started on these devices (none: on the CPU).

    It looks at no file, and says None where the deployment can be started as far as is known.
    """

    def why_not(deployment: Deployment) -> Reason | None:
        if deployment.terms.base_url:
            return None
        if reason := _no_build(devices, deployment):
            return reason
        try:
            _launch_somewhere(devices, deployment)
        except UserError as error:
            return Reason(str(error))
        return None

    return why_not


def _no_build(devices: Sequence[int], deployment: Deployment) -> Reason | None:
    build = build_of(deployment)
    if not is_process(deployment) or build.is_own:
        return None
    spec = build.spec(has_device=bool(devices))
    if isinstance(spec, Reason):
        return spec
    # A run is on one device. A server without weights computes nothing, wherever it is.
    if not devices or ENGINES[build.engine].weights(deployment) is None:
        return None
    for_device = build.spec_for("cuda")
    if not isinstance(for_device, Reason):
        return None
    others = (Build(build.engine, each) for each in ENGINES[build.engine].programs)
    able = [each.program for each in others if isinstance(each.spec_for("cuda"), InstallSpec)]
    ways = [*(f"{build.engine}.program={each}" for each in able[:1]), "device=cpu"]
    return Reason(f"{for_device.text}; {' or '.join(ways)} would do")


def _launch_somewhere(devices: Sequence[int], deployment: Deployment) -> LaunchSpec:
    """Return its launch at a place that stands for any."""
    path = Path("program")
    somewhere = Place(path, Path("/weights"), "127.0.0.1", 0, Path(), program=path, devices=tuple(devices))
    return ENGINES[deployment.engine].launch(deployment, somewhere)


def images_of(deployments: Iterable[Deployment], devices: Sequence[int]) -> list[str]:
    """Return the images that the deployments' containers are made of, each once."""
    docker = [each for each in deployments if not each.terms.base_url and each.terms.launcher == "docker"]
    specs = [_launch_somewhere(devices, deployment) for deployment in docker]
    return list(dict.fromkeys(spec.image for spec in specs if isinstance(spec, ContainerSpec)))


def check_builds(device: str, deployments: Iterable[Deployment]) -> None:
    """Raise UserError where what the user brought is not there, or a server would need more devices than
    were asked for."""
    count = len(select_devices(device))
    for deployment in deployments:
        if is_process(deployment):
            check_own(build_of(deployment))
        wanted = deployment.terms.tensor_parallel
        if count and wanted > count and deployment.terms.base_url is None:
            listed = ",".join(map(str, range(wanted)))
            raise UserError(
                f"engine.tensor_parallel={wanted}: device={device} is {count} of them; "
                f"name as many, such as 'device=\"{listed}\"'"
            )
