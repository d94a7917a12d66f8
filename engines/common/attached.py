"""Make an engine that bench can only attach to: others start its servers and stop them."""

from typing import Any

from harness.contracts import Deployment, Engine, LaunchSpec, Place, Reason
from harness.errors import UserError


def attached_engine(name: str, description: str, options: type, example: str, **own: Any) -> Engine:
    """Return an engine without a launcher. `example`: a base URL of such a server."""

    def launch(deployment: Deployment, place: Place) -> LaunchSpec:
        raise UserError(
            f"engine={name} needs engine.base_url=URL of a running server; "
            f"for example engine.base_url={example}"
        )

    return Engine(
        name=name,
        description=f"{description} (engine.base_url=URL)",
        options=options,
        launchers=(),
        launch=launch,
        reset_cache=lambda deployment: Reason("a running server was started by others, and may serve them"),
        memory_needed=lambda deployment, facts, device: Reason(
            "a running server was started by others; its memory is theirs to know"
        ),
        **own,
    )
