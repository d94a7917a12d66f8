"""Reads the data that a written page carries packed for its script."""

import base64
import gzip
import json
import re
from typing import Any


def unpacked(page: str, name: str) -> str:
    """Return the text that the page packed under this id. There must be exactly one."""
    [packed] = re.findall(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    return gzip.decompress(base64.b64decode(packed)).decode()


def charts_of(page: str) -> dict[str, Any]:
    """Return traces and layout of each chart by its id, as the page's script draws them."""
    return dict(json.loads(unpacked(page, "charts")))
