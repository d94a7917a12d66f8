"""Reads TGI's /info by Hugging Face's own client, which knows where a server keeps it.

Must not know what the page says: engines/tgi/log.py reads it.
"""

from collections.abc import Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any


def read_pages(base_url: str, key: str | None, timeout_s: float) -> Mapping[str, Any]:
    """Return /info by its path. Block for up to timeout_s; return nothing where it cannot be had."""
    # The client's own timeout does not hold for this page: it waits for as long as the server is silent.
    found: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    Thread(target=lambda: found.put(_info(base_url, key)), name="tgi /info", daemon=True).start()
    try:
        return found.get(timeout=timeout_s)
    except Empty:
        return {}


def _info(base_url: str, key: str | None) -> Mapping[str, Any]:
    from huggingface_hub import InferenceClient  # slow to import, and only TGI needs it

    root = base_url.rstrip("/").removesuffix("/v1")
    # Without a token the client would send the one that the user is logged in with.
    try:
        with InferenceClient(root, provider="hf-inference", token=key or "none") as client:
            return {"/info": client.get_endpoint_info()}
    except Exception:  # of whichever HTTP library this release of the client uses
        return {}
