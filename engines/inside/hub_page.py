"""Says what the Hugging Face hub has of a model without its weights: its config.json, and its parameters.

Arguments: repository, revision. Runs with bench's own Python (`python -P`), as a process of its own: what
huggingface_hub is told by its environment holds for it alone. The output is JSON: `config` and `parameters`
(numbers stored in its safetensors, null where the hub has not counted them). Where they are not had it exits
with 4; the output is then a clause on why. Nothing is kept.

The token comes from HF_TOKEN alone, never from the file that a login leaves; HF_ENDPOINT is another hub.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TIMEOUT_S = 20.0
REFUSED = 4


def page(repo: str, revision: str, folder: str) -> dict[str, object]:
    token: str | bool = os.environ.get("HF_TOKEN") or False
    info = HfApi(token=token).model_info(repo, revision=revision, timeout=TIMEOUT_S)
    path = hf_hub_download(
        repo,
        "config.json",
        revision=info.sha,
        local_dir=folder,
        cache_dir=Path(folder) / ".cache",
        etag_timeout=TIMEOUT_S,
        token=token,
    )
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    return {"config": config, "parameters": info.safetensors.total if info.safetensors else None}


def refusal(error: Exception, revision: str) -> str | None:
    """In words; None for what is a mistake of ours."""
    endpoint = os.environ.get("HF_ENDPOINT", "the hub")
    # The kinds before those that they are of.
    if isinstance(error, GatedRepoError):
        return "is gated: accept its terms on its page at the hub, and set HF_TOKEN to a token of yours"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision}"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one that needs HF_TOKEN"
    if isinstance(error, EntryNotFoundError):
        return "has no config.json; of a GGUF file on this machine give model=/path/FILE.gguf"
    if isinstance(error, HfHubHTTPError):
        return f"{endpoint} answered {error.response.status_code}"
    if isinstance(error, ValueError):
        return f"its config.json cannot be read ({error})"
    is_of_transport = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")
    if isinstance(error, OSError) or is_of_transport:
        return f"{endpoint} cannot be reached ({error}); give model=/path/config.json"
    return None


def main() -> None:
    repo, revision = sys.argv[1:]
    try:
        with tempfile.TemporaryDirectory() as folder:
            said = page(repo, revision, folder)
    except Exception as error:
        why = refusal(error, revision)
        if why is None:
            raise
        print(" ".join(why.split()))
        sys.exit(REFUSED)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
