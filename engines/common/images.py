"""Which container image an engine runs in: the names in docker/versions.env, the one place that has them.

Must not know Docker; harness/servers/container.py runs what is named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError

# Beside the packages, in a checkout as in the harness image.
VERSIONS = Path(__file__).parent.parent.parent / "docker" / "versions.env"


def image_of(engine: str, device: str, versions: Path = VERSIONS) -> str:
    """Return the image of an engine for a `cpu` or `cuda` device.

    Raise UserError where there is none, which says what can be given instead.
    """
    images = read_versions(versions)
    key = f"{engine}_{device}_IMAGE".upper()
    if key not in images:
        others = [name for name in ("cpu", "cuda") if f"{engine}_{name}_IMAGE".upper() in images]
        known = f" (there is one for {', '.join(others)})" if others else ""
        raise UserError(
            f"engine.launcher=docker: {engine} has no image for {device}{known}; "
            f"{engine}.image names one of your own"
        )
    return images[key]


def read_versions(path: Path = VERSIONS) -> Mapping[str, str]:
    """Return the lines NAME=VALUE of versions.env. Raise UserError if it is not there or not of that form."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is not there: containers need bench in its checkout or in its image"
        ) from error
    named = [line for line in lines if line.strip() and not line.startswith("#")]
    rows = [line.partition("=") for line in named]
    for line, (name, equals, value) in zip(named, rows, strict=True):
        if not equals or not name.isidentifier() or not value.strip():
            raise UserError(f"{path}, line {lines.index(line) + 1}: not of the form NAME=VALUE: {line}")
    return {name: value.strip() for name, _, value in rows}
