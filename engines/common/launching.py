"""What all engines say alike of a start: paths, templates, containers and their images.

The images' names are in docker/versions.env, the one place that has them. Pure but for reading that file.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from harness.contracts import ContainerSpec, Deployment, Place
from harness.errors import UserError

# Beside the packages, in a checkout as in the harness image.
VERSIONS = Path(__file__).parent.parent.parent / "docker" / "versions.env"
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
