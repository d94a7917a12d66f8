"""Ask the Hugging Face hub about a model, or download files of it (a `python -P` with huggingface_hub).

`ask REPOSITORY REVISION` prints the fields of HubPage in engines/model/facts.py as JSON; `download REPOSITORY
COMMIT FOLDER BYTES NAME...` fetches the files that are missing. If the hub refuses, the last line is REFUSAL
and the reason, and the exit code is 4. The token comes from HF_TOKEN, or from HUGGING_FACE_HUB_TOKEN, its
older name, and never from a file.
"""

import glob
import json
import os
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

os.environ |= {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
}

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REFUSED, REFUSAL = 4, "refused: "
TIMEOUT_S, PROGRESS_S = 20.0, 2.0
TOKEN: str | bool = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or False
ENDPOINT = os.environ.get("HF_ENDPOINT", "the hub")
# What to say for each error of the hub. Subclasses come before their base classes.
ANSWERS = {
    GatedRepoError: "it is gated: accept its terms on its page at the hub, and set HF_TOKEN to a token of "
    "yours",
    RevisionNotFoundError: "it has no revision {revision}",
    RepositoryNotFoundError: "no such repository, or a private one that needs HF_TOKEN",
    HfHubHTTPError: "{endpoint} answered {error.response.status_code}",
}


def ask(repo: str, revision: str) -> None:
    info = HfApi(token=TOKEN).model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    files = [
        {"name": each.rfilename, "size_bytes": each.size, "sha256": each.lfs.sha256 if each.lfs else None}
        for each in info.siblings or []
    ]
    config = None
    if any(each["name"] == "config.json" for each in files):
        with suppress(ValueError, RecursionError), tempfile.TemporaryDirectory() as folder:
            path = hf_hub_download(
                repo,
                "config.json",
                revision=info.sha,
                local_dir=folder,
                cache_dir=Path(folder, ".cache"),
                etag_timeout=TIMEOUT_S,
                token=TOKEN,
            )
            config = json.loads(Path(path).read_bytes())
    config = config if isinstance(config, dict) else None
    parameters = info.safetensors.total if info.safetensors else None
    print(json.dumps({"commit": info.sha, "files": files, "parameters": parameters, "config": config}))


def download(repo: str, commit: str, output: str, total: str, *names: str) -> None:
    folder, done = Path(output), threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    for half in folder.glob(".cache/**/*.incomplete"):
        half.unlink()  # from a run that was killed; huggingface_hub starts such a file again anyway
    thread = threading.Thread(target=tell, args=(folder, int(total), done), daemon=True)
    thread.start()
    try:
        snapshot_download(
            repo,
            revision=commit,
            local_dir=folder,
            cache_dir=folder / ".cache",
            allow_patterns=[glob.escape(name) for name in names],
            token=TOKEN,
        )
    finally:
        done.set()
        thread.join()
    # If the hub stops answering, huggingface_hub accepts a folder that has some of the files.
    if not all((folder / name).is_file() for name in names):
        raise ConnectionError
    shutil.rmtree(folder / ".cache")


def tell(folder: Path, total: int, done: threading.Event) -> None:
    while not done.wait(PROGRESS_S):
        try:
            here = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        except FileNotFoundError:
            continue  # a file was renamed between the listing and lstat
        print(f"{here / 1e6:.0f} of {total / 1e6:.0f} MB", flush=True)


def refusal(error: Exception, revision: str) -> str | None:
    if answered := next((clause for kind, clause in ANSWERS.items() if isinstance(error, kind)), None):
        return answered.format(revision=revision, endpoint=ENDPOINT, error=error)
    is_of_transport = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")
    if is_of_transport or isinstance(error, ConnectionError | LocalEntryNotFoundError):
        return (
            f"{ENDPOINT} cannot be reached from here, or stopped answering ({type(error).__name__}); connect "
            "this machine or set HF_ENDPOINT to a mirror, then run the same command again"
        )
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def main() -> None:
    verb, repo, revision, *more = sys.argv[1:]
    try:
        if verb == "ask":
            ask(repo, revision)
        else:
            download(repo, revision, *more)
    except Exception as error:
        why = refusal(error, revision)
        if why is None:
            raise
        print(REFUSAL + " ".join(why.split()), flush=True)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
