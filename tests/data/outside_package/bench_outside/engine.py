"""echo: the reference server as another package starts it, with keys of its own; and two that are broken."""

from dataclasses import dataclass, replace

from serving_bench import COUNT, Deployment, LaunchSpec, Place, key
from serving_bench.engines import ENGINES

REFERENCE = ENGINES["reference"]


@dataclass(frozen=True)
class Options:
    slots: int = key(8, "The generations at once.", COUNT)
    ttft_s: float = key(0.02, "The TTFT.")
    note: str = key("", "A text without a class.")


def _launch(deployment: Deployment, place: Place) -> LaunchSpec:
    asked = deployment.options
    options = REFERENCE.options(ttft_s=asked.ttft_s, slots=asked.slots)
    return REFERENCE.launch(replace(deployment, options=options), place)


ENGINE = replace(
    REFERENCE,
    name="echo",
    description="the reference server, of another package",
    options=Options,
    launch=_launch,
    programs=(None,),
    install=lambda program, device: None,
    forces_length=lambda deployment: True,
    why_no_adapters=lambda deployment: None,
)
TAKEN = replace(REFERENCE, description="of another package")
SECTION = replace(ENGINE, name="load")
