"""Finished weights in the cache directory: a file or a directory, and a manifest beside it, written last.

What has no manifest, or another size than it says, does not count. Knows not how weights are made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.whole_files import sync, write_whole

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """`manifest`: size_bytes, sha256 and note, where it comes from, and for a directory its `files`: name ->
    size_bytes and sha256. A directory's sha256 is that of the lines `<sha256>  <name>`, sorted by name."""

    path: Path
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Lack:
    """What a source does not have, as found on a day (ISO date)."""

    text: str
    found: str


def read(path: Path) -> Kept | None:
    """None where it is absent or unfinished. Quick: compares sizes, not hashes."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        is_whole = {"sha256", "size_bytes", "note"} <= manifest.keys()
        if is_whole and _sizes_agree(path, manifest):
            return Kept(path, manifest)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        pass
    return None


def finish(part: Path, path: Path, facts: Mapping[str, Any]) -> None:
    """Give the part its name, then write its manifest: `facts`, sizes, hashes and the time.

    Blocks while all of it is hashed."""
    manifest = {**facts, **_measured(part), "made": datetime.now(UTC).isoformat(timespec="seconds")}
    for each in [part, *(part.rglob("*") if part.is_dir() else ())]:
        sync(each)
    manifest_path(path).unlink(missing_ok=True)  # first: what is half replaced does not count
    if path.is_dir():
        shutil.rmtree(path)
    part.replace(path)
    sync(path.parent)
    write_whole(manifest_path(path), (json.dumps(manifest, indent=2) + "\n").encode())


def write_lack(path: Path, identity: Mapping[str, Any], text: str) -> None:
    """Keep that the source has not what would be at `path`, and why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.now(UTC).date().isoformat()
    said = json.dumps({**identity, "text": text, "found": today}, indent=2) + "\n"
    write_whole(_lack_path(path), said.encode())


def lack_of(path: Path, identity: Mapping[str, Any]) -> Lack | None:
    """What was found of this source; None where nothing was, or of another."""
    try:
        said = json.loads(_lack_path(path).read_text(encoding="utf-8"))
        is_this = identity.items() <= said.items()
        return Lack(str(said["text"]), str(said["found"])) if is_this else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def forget_lack(path: Path) -> None:
    _lack_path(path).unlink(missing_ok=True)


def manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def part_path(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """Where a file or a directory is written before it gets its name; what is left there is removed, also
    what a killed run left."""
    part = part_path(path)
    _remove(part)
    try:
        yield part
    finally:
        _remove(part)


@contextmanager
def exclusive(folder: Path, on_line: OnLine) -> Iterator[None]:
    """Hold the folder's lock; waits while another process prepares the same model."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line(f"waiting for another process that prepares {folder.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sha256_of_files(folder: Path, files: Sequence[Path]) -> str:
    """Of the lines `<sha256>  <name>`, sorted by name."""
    return _sha256_of_lines({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


def _sha256_of_lines(digests: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _lack_path(path: Path) -> Path:
    return path.with_name(path.name + ".lacking")


def _measured(part: Path) -> dict[str, Any]:
    if not part.is_dir():
        return {"size_bytes": part.stat().st_size, "sha256": sha256_of(part)}
    files: dict[str, dict[str, Any]] = {
        path.relative_to(part).as_posix(): {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in files_below(part)
    }
    return {
        "size_bytes": sum(file["size_bytes"] for file in files.values()),
        "sha256": _sha256_of_lines({name: file["sha256"] for name, file in files.items()}),
        "files": files,
    }


def _sizes_agree(path: Path, manifest: Mapping[str, Any]) -> bool:
    if "files" not in manifest:
        return path.is_file() and path.stat().st_size == manifest["size_bytes"]
    return all((path / name).stat().st_size == file["size_bytes"] for name, file in manifest["files"].items())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
