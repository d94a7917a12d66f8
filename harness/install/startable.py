"""Which deployments this machine can start, whatever gets installed, and what the user brought for them.

Installs nothing, and never changes what the user brought. Knows no engine: asks each engine's own file.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from engines import ENGINES
from harness.contracts import ContainerSpec, Deployment, InstallSpec, LaunchSpec, Place, Reason
from harness.errors import UserError
from harness.install.builds import Build, build_of, is_process, uses_devices
from harness.install.install import python_of, versions_in
from harness.plan.candidates import candidates
from harness.sampling import gpu
from harness.settings.config import Settings

# How a program's file begins: ELF, Mach-O's 64 bits, or a script.
_PROGRAMS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!")


def select_devices(device: str) -> tuple[int, ...]:
    """Return the indices of the devices to use; `auto` is the first one, or none where there is none."""
    if device != "auto":
        return gpu.select(device)
    return () if isinstance(gpu.devices(), Reason) else (0,)


def device_of(settings: Settings) -> str:
    """Return the run's `device`: `cpu` instead of `auto` where nothing asked for could use another."""
    if settings.device != "auto":
        return settings.device
    # A server without weights computes nothing, wherever it is.
    could_use_device = (
        each.terms.base_url or (uses_devices(each) and ENGINES[each.engine].weights(each) is not None)
        for each in candidates(settings)
    )
    return "auto" if any(could_use_device) else "cpu"


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


# --- what the user brought


def check_own(build: Build) -> None:
    """Raise UserError where a program or an environment of the user's cannot be what it should be.

    Starts nothing.
    """
    said = f"{build.engine}.program={build.program}"
    if build.has_own_program:
        path = Path(build.program or "")
        is_program = path.is_file() and _begins_as_program(path)
        remedy = "chmod +x would let it" if is_program else "it is no program; give the path of the program"
        problems = {
            "no such file": not path.exists(),
            "is not a file; give the path of the program itself": not path.is_file(),
            f"cannot be executed; {remedy}": not os.access(path, os.X_OK),
        }
        _refuse(said, problems)
    if build.environment is not None:
        what, folder = f"{build.engine}.environment={build.environment}", Path(build.environment)
        problems = {
            f"{said} is started by itself; give one of them": build.has_own_program,
            "no such directory": not folder.exists(),
            "is a file; give the directory that has bin/python": not folder.is_dir(),
            "is not a Python environment (it has no bin/python)": not os.access(python_of(folder), os.X_OK),
        }
        _refuse(what, problems)


def _begins_as_program(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_PROGRAMS)
    except OSError:
        return False


def _refuse(what: str, problems: Mapping[str, bool]) -> None:
    """Raise UserError with the first problem that there is."""
    for said, is_there in problems.items():
        if is_there:
            raise UserError(f"{what}: {said}")


def own_versions(build: Build) -> dict[str, str]:
    """Return distribution -> version of the user's environment; of a program its name and hash.

    Blocks while the environment's Python runs. Raises UserError where it does not run.
    """
    if build.environment is not None:
        return versions_in(Path(build.environment), f"{build.engine}.environment={build.environment}")
    program = Path(build.program or "")
    with program.open("rb") as file:
        return {program.name: f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"}
