"""What all engines say alike of a start: paths, templates, containers. Pure: nothing is looked up on disk but
the names of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from engines.common.images import image_of
from harness.contracts import ContainerSpec, Deployment, Place

INSIDE = Path(__file__).parent.parent / "inside"
LOCKS = Path(__file__).parent.parent / "locks"
# Whatever user an image has may write there.
CACHE_IN_IMAGE = Path("/var/tmp")
# The first of several files of one model; the server finds the others beside it.
FIRST_OF_SEVERAL = re.compile(r"-00001-of-\d{5}\.gguf$")

T = TypeVar("T")


def given(value: T | None, needed: str) -> T:
    """Return what a place has. Raise ValueError with `needed` where it does not: a mistake of bench's own."""
    if value is None:
        raise ValueError(needed)
    return value


def template_of(deployment: Deployment, place: Place) -> Path | None:
    """Return the Jinja file of the chat template: the user's, else the one that comes with the weights."""
    found = deployment.terms.chat_template or place.chat_template
    return None if found is None else Path(found).expanduser().absolute()


def compile_caches(folder: Path | None, *variables: str) -> dict[str, str]:
    """Return the variables that keep what was compiled for later starts; `variables` name the folder too."""
    if folder is None:
        return {}
    torch = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
    return {**dict.fromkeys(variables, str(folder)), **torch}


def container(
    deployment: Deployment,
    place: Place,
    arguments: Callable[[str, str | None], Iterable[str]],
    *,
    template: Path | None,
    environment: Mapping[str, str],
    **others: Any,
) -> ContainerSpec:
    """Return a container of the user's image, else of bench's, with weights and template mounted.

    `arguments` is called with the paths of both inside. `others` are further fields of ContainerSpec.
    """
    mount, weights = weights_mount(given(place.weights, f"{deployment.engine} needs weights"))
    templates = [] if template is None else [(template, f"/templates/{template.name}")]
    fields = {"served_model": deployment.model, **others}
    return ContainerSpec(
        image=deployment.options.image or image_of(deployment.engine, "cuda" if place.devices else "cpu"),
        arguments=tuple(arguments(weights, templates[0][1] if templates else None)),
        base_url=place.base_url,
        ready_path="/health",
        environment=environment,
        mounts=(mount, *templates),
        devices=place.devices,
        memory_limit_bytes=deployment.terms.memory_limit_bytes,
        **fields,
    )


def weights_mount(weights: Path) -> tuple[tuple[Path, str], str]:
    """Return what to mount and where, and the weights' path there.

    The first folder inside has no character but letters, digits and `_.-`. Links are known by the names of
    their folders alone: others that lead out of what is mounted work natively and not in a container.
    """
    outer = _reached(weights)
    inside = "/weights/" + re.sub(r"[^\w.-]", "-", outer.name)
    return (outer, inside), str(PurePosixPath(inside) / weights.relative_to(outer))


def _reached(weights: Path) -> Path:
    """Return the folder or file that holds all that is read of `weights`.

    In a cache of Hugging Face's, models--ORGANISATION--NAME/snapshots/REVISION has links to blobs/ beside
    snapshots/.
    """
    for folder in weights.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            return folder.parent
    return weights.parent if FIRST_OF_SEVERAL.search(weights.name) else weights
