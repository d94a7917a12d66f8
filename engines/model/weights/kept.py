"""Store finished weights in the cache: a file or a directory, and beside it a manifest, written last."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving_bench.harness.contracts import Fact, sentences
from serving_bench.harness.errors import MissingError, UserError
from serving_bench.harness.foreign_files import json_of, read_text
from serving_bench.harness.whole_files import sync, write_whole

Manifest = Mapping[str, Any]


def read(path: Path) -> Manifest | None:
    """Return the manifest of finished weights; None if they are missing or unfinished.

    Compares sizes, not hashes. A manifest has `size_bytes`, `sha256`, `notes` (facts; earlier a text,
    `note`), the origin, and for a directory `files`: name -> size_bytes and sha256. A directory's sha256 is
    that of the lines `<sha256>  <name>`, sorted by name.
    """
    try:
        manifest: Manifest = json_of(read_text(_manifest_path(path), "manifest"), "manifest")
        files = manifest.get("files", {"": manifest})
        is_whole = all((path / name).stat().st_size == file["size_bytes"] for name, file in files.items())
        notes = manifest.get("notes") or filter(None, [manifest.get("note")])
        read = {**manifest, "notes": tuple(sentences.read(Fact, each) for each in notes)}
        return read if is_whole and {"sha256", "size_bytes"} <= manifest.keys() else None
    except (UserError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def finish(
    part: Path, path: Path, facts: Mapping[str, Any], expected: Mapping[str, str | None] | None = None
) -> None:
    """Rename the part to its final name, then write its manifest: `facts`, sizes, hashes and the time.

    `expected`: sha256 by name ("" is the part itself). A file that differs is removed, and MissingError
    raised.
    """
    sizes = measured(part)
    for name, digest in (expected or {}).items():
        actual = sizes["files"][name]["sha256"] if name else sizes["sha256"]
        if digest and actual != digest:
            (part / name).unlink()
            raise MissingError(
                f"{name or path.name} has sha256 {actual}, but should have {digest}; try again"
            )
    manifest = {**facts, **sizes, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    for each in [part, *(part.rglob("*") if part.is_dir() else ())]:
        sync(each)
    _manifest_path(path).unlink(missing_ok=True)  # first, so that half-replaced weights do not count
    if path.is_dir():
        shutil.rmtree(path)
    part.replace(path)
    sync(path.parent)
    write_whole(
        _manifest_path(path), (json.dumps(manifest, indent=2, default=sentences.stored) + "\n").encode()
    )


def part_path(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def remove(path: Path) -> None:
    """Remove finished weights. The manifest goes first, so that half-removed weights do not count."""
    _manifest_path(path).unlink(missing_ok=True)
    _remove(path)


@contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """Give the part's path, where nothing exists yet. Remove what is left there afterwards."""
    part = part_path(path)
    _remove(part)  # left by a process that was killed
    try:
        yield part
    finally:
        _remove(part)


def measured(path: Path, files: Sequence[Path] | None = None) -> Manifest:
    """Return size_bytes and sha256 of a file or a directory, as `read` describes.

    For a directory, `files` limits what is hashed.
    """
    if not path.is_dir():
        return {"size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
    record = {
        each.relative_to(path).as_posix(): {"size_bytes": each.stat().st_size, "sha256": sha256_of(each)}
        for each in files or files_below(path)
    }
    lines = "".join(f"{file['sha256']}  {name}\n" for name, file in sorted(record.items()))
    return {
        "size_bytes": bytes_below(path),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "files": record,
    }


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_below(folder))


def _manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
