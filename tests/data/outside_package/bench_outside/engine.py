"""echo: bench's reference server as another package starts it, with keys of its own."""

from dataclasses import dataclass, replace

from serving_bench.engines import ENGINES
from serving_bench.engines.common.launching import flags, given
from serving_bench.engines.places import INSIDE
from serving_bench.harness.contracts import (
    COUNT,
    Deployment,
    Engine,
    InstallSpec,
    LaunchSpec,
    NativeSpec,
    Place,
    key,
)


@dataclass(frozen=True)
class Options:
    slots: int = key(8, "The generations at once.", COUNT)
    ttft_s: float = key(0.02, "The TTFT.")
    note: str = key("", "A text without a class.")


def _install(program: str | None, device: str) -> InstallSpec | None:
    return None  # it runs in bench's own environment


def _launch(deployment: Deployment, place: Place) -> LaunchSpec:
    import sys

    options = deployment.options
    values = {
        "model": deployment.model,
        "port": place.port,
        "sends": given(place.scratch, "echo needs a folder"),
        "ttft-s": options.ttft_s,
        "slots": options.slots,
    }
    server = INSIDE / "reference" / "reference_server.py"
    argv = (sys.executable, "-P", str(server), *flags(values))
    return NativeSpec(argv, place.base_url, deployment.model)


ENGINE = Engine(
    name="echo",
    description="the reference server, of another package",
    options=Options,
    launch=_launch,
    install=_install,
    bytes_per_token=4,
    forces_length=lambda deployment: True,
)
TAKEN = replace(ENGINES["reference"], description="of another package")
SECTION = replace(ENGINE, name="load")
