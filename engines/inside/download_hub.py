"""Downloads a model from the Hugging Face hub. Runs with bench's own Python (`python -P`), as a process of
its own so that it can be ended at once.

Arguments: repository, revision, output directory, what (`checkpoint`, or the kind of a GGUF file such as
q4_k_m), then file names if they are known. A download that was cut short goes on with the files that are
missing in its output directory. Only safetensors, GGUF, JSON and tokenizer files are fetched: neither
pickles nor code. Each file is checked against the hash that the hub has. The last line is JSON: the commit
and the files' names. Where the repository lacks what is asked for it exits with 3, where nothing can be
fetched with 4; the last line is then a sentence on why.

The token comes from HF_TOKEN alone, never from the file that a login leaves; HF_ENDPOINT is another hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

PROGRESS_S = 2.0
LACKS, REFUSED = 3, 4
_COMPANIONS = re.compile(r"[^/]+\.(json|jinja|model|tiktoken)|merges\.txt|vocab\.txt|LICENSE.*|USE_POLICY.*")
_PICKLES = re.compile(r".*\.(bin|pt|pth|ckpt)")
_SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


class LackingError(Exception):
    """The repository has not what was asked for; the words follow its name."""


class RefusedError(Exception):
    """Nothing is fetched; a sentence."""


def choose_checkpoint(names: Sequence[str]) -> list[str]:
    """The safetensors of the top folder with what belongs to them. `consolidated*` are the same once more."""
    weights = [name for name in names if re.fullmatch(r"[^/]+\.safetensors", name)]
    plain = [name for name in weights if not name.startswith("consolidated")]
    if not plain:
        pickles = any(_PICKLES.fullmatch(name) for name in names)
        raise LackingError(
            "has pickles only, which can run code when they are loaded; bench takes safetensors and GGUF"
            if pickles
            else "has no safetensors"
        )
    companions = [name for name in names if _COMPANIONS.fullmatch(name)]
    return plain + [name for name in companions if not name.startswith("consolidated")]


def choose_gguf(names: Sequence[str], kind: str) -> list[str]:
    """The file of this kind, or all parts of it."""
    files = [name for name in names if name.endswith(".gguf") and not Path(name).name.startswith("mmproj")]
    found = [name for name in files if re.search(rf"(?i)[-._]{kind}(-\d{{5}}-of-\d{{5}})?\.gguf$", name)]
    singles = [name for name in found if not _SHARD.search(name)]
    chosen = singles or found
    if not chosen:
        raise LackingError(f"has no {kind} file; there are: {', '.join(files) or 'no GGUF files'}")
    if len(singles) > 1:
        raise LackingError(f"has several {kind} files: {', '.join(singles)}")
    return chosen


def choose(siblings: Sequence[RepoSibling], what: str, known: Sequence[str]) -> list[RepoSibling]:
    names = [each.rfilename for each in siblings]
    if known:
        missing = sorted(set(known) - set(names))
        if missing:
            raise LackingError(f"has no {missing[0]}")
        chosen = list(known)
    else:
        chosen = choose_checkpoint(names) if what == "checkpoint" else choose_gguf(names, what)
    return [each for each in siblings if each.rfilename in chosen]


def check_disk(files: Sequence[RepoSibling], output: Path) -> None:
    here = bytes_below(output)
    needed = sum(each.size or 0 for each in files) - here
    free = shutil.disk_usage(output).free
    if free < needed:
        raise RefusedError(f"{output} needs {needed / 1e9:.1f} GB, where {free / 1e9:.1f} GB are free")


def bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def progress(output: Path, total: int) -> Iterator[None]:
    """A line now and then on how much is here."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PROGRESS_S):
            try:
                print(f"{bytes_below(output) / 1e6:.0f} of {total / 1e6:.0f} MB", flush=True)
            except FileNotFoundError:
                continue  # renamed between the listing and the look at its size
            except BrokenPipeError:
                os._exit(1)  # nobody reads any more: not this thread alone, but the download is to end

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def verify(each: RepoSibling, path: Path) -> None:
    """By the hash of a large file, else by that of git's blob."""
    size = path.stat().st_size
    if each.size is not None and size != each.size:
        path.unlink()
        raise RefusedError(f"{each.rfilename} has {size} bytes, but should have {each.size}; try again")
    wanted = each.lfs.sha256 if each.lfs else each.blob_id
    if wanted is None:
        return
    digest = hashlib.sha256() if each.lfs else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    if (found := digest.hexdigest()) != wanted:
        path.unlink()
        raise RefusedError(f"{each.rfilename} has hash {found}, but should have {wanted}; try again")


def download(repo: str, revision: str, output: Path, what: str, known: Sequence[str]) -> dict[str, object]:
    token: str | bool = os.environ.get("HF_TOKEN") or False
    api = HfApi(token=token)
    info = api.model_info(repo, revision=revision, files_metadata=True)
    if info.sha is None:
        raise RefusedError("the hub names no commit")
    files = choose(info.siblings or [], what, known)
    for half in output.glob(".cache/**/*.incomplete"):
        half.unlink()  # of a run that was killed; huggingface_hub begins each file anew
    check_disk(files, output)
    total = sum(each.size or 0 for each in files)
    print(f"{repo} at {info.sha[:12]}: {len(files)} files, {total / 1e6:.0f} MB", flush=True)
    with progress(output, total):
        for each in sorted(files, key=lambda each: each.size or 0):
            path = hf_hub_download(
                repo,
                each.rfilename,
                revision=info.sha,
                local_dir=output,
                cache_dir=output / ".cache",
                token=token,
            )
            verify(each, Path(path))
            print(f"{each.rfilename}: {(each.size or 0) / 1e6:.1f} MB", flush=True)
    shutil.rmtree(output / ".cache", ignore_errors=True)
    return {"commit": info.sha, "files": sorted(each.rfilename for each in files)}


def main() -> None:
    repo, revision, output, what, *known = sys.argv[1:]
    Path(output).mkdir(parents=True, exist_ok=True)
    try:
        made = explained(repo, revision, Path(output), what, known)
    except LackingError as error:
        print(f"{repo} {error}", flush=True)
        sys.exit(LACKS)
    except RefusedError as error:
        print(f"{repo} could not be downloaded: {error}", flush=True)
        sys.exit(REFUSED)
    print(json.dumps(made), flush=True)


def explained(repo: str, revision: str, output: Path, what: str, known: Sequence[str]) -> dict[str, object]:
    """`download`, its errors in words."""
    endpoint = os.environ.get("HF_ENDPOINT", "the hub")
    unreachable = (
        f"{endpoint} cannot be reached from here; connect this machine, or set HF_ENDPOINT to a mirror"
    )
    try:
        return download(repo, revision, output, what, known)
    except GatedRepoError:
        raise RefusedError(
            "it is gated: accept its terms on its page at the hub, and set HF_TOKEN to a token of yours"
        ) from None
    except RevisionNotFoundError:
        raise RefusedError(f"it has no revision {revision}") from None
    except RepositoryNotFoundError:
        raise RefusedError("no such repository, or a private one that needs HF_TOKEN") from None
    except HfHubHTTPError as error:
        raise RefusedError(f"{endpoint} answered {error.response.status_code}") from None
    except (ConnectionError, LocalEntryNotFoundError):
        raise RefusedError(unreachable) from None
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise RefusedError(what) from None
    except (LackingError, RefusedError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        if type(error).__name__.startswith("Connect"):  # ConnectError, ConnectTimeout
            raise RefusedError(unreachable) from None
        why = str(error) or type(error).__name__
        raise RefusedError(f"{endpoint} stopped answering ({why}); the same command goes on") from None


if __name__ == "__main__":
    main()
