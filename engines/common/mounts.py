"""Where a container finds weights: what is mounted for them. Pure, so links are known by the names of their
folders alone; others that lead out of what is mounted work natively and not in a container.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

# The first of several files of one model; the server finds the others beside it.
FIRST_OF_SEVERAL = re.compile(r"-00001-of-\d{5}\.gguf$")


def weights_mount(weights: Path) -> tuple[tuple[Path, str], str]:
    """What to mount and where, and the weights' path there. Its first folder has no character but letters,
    digits and `_.-`."""
    outer = _reached(weights)
    inside = "/weights/" + re.sub(r"[^\w.-]", "-", outer.name)
    return (outer, inside), str(PurePosixPath(inside) / weights.relative_to(outer))


def _reached(weights: Path) -> Path:
    """The folder or file that holds all that is read of `weights`. In a cache of Hugging Face's,
    models--ORGANISATION--NAME/snapshots/REVISION has links to blobs/ beside snapshots/."""
    for folder in weights.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            return folder.parent
    return weights.parent if FIRST_OF_SEVERAL.search(weights.name) else weights
