"""Write a file whole or not at all, lock a file, and check the free space of a disk.

Uses only the standard library.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from serving_bench.harness.contracts import ProgressLines
from serving_bench.harness.errors import UserError


@contextmanager
def locked(path: Path, progress: ProgressLines | None = None, doing: str = "") -> Iterator[None]:
    """Hold the lock of a file in the cache during the block. If another process has it, say so and wait.

    `doing`: what that process does. Raises UserError on a file system without locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not try_lock(file, path, "set BENCH_CACHE_DIR to a folder on another"):
            if progress is not None:
                progress.line(f"waiting for another process that {doing}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(file: IO[Any], path: Path, remedy: str) -> bool:
    """Take the lock of a file that is open for writing, without waiting. Return False if another process has
    it. Raises UserError with the remedy if the file system has no locks, as some mounts of NFS or Lustre."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        why = f"its file system has no locks ({error.strerror}), which bench needs to keep another bench out"
        raise UserError(f"{path}: {why}; {remedy}") from error
    return True


# The mode of a file that may hold what users said: only its owner may read it.
PRIVATE = 0o600


@contextmanager
def private() -> Iterator[None]:
    """Make the block's new files and folders accessible to their owner only, also those of its children."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def written_whole(path: Path, *, lasts: bool = True, mode: int = 0o666) -> Iterator[Path]:
    """Give the block an empty file beside `path` to write to, and move that to `path` at the block's end.

    Its name cannot be guessed, so nobody can have put a link there. With `lasts` false, writing is faster but
    the file may not survive a power cut. Raises OSError. If the block raises, no file is left behind.
    """
    part, descriptor = _new_part(path, mode)
    try:
        yield part
        if lasts:
            sync(part)
        os.replace(part, path)
        with suppress(OSError):  # some file systems sync no directories
            if lasts:
                sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
        os.close(descriptor)


def _new_part(path: Path, mode: int) -> tuple[Path, int]:
    """Make a file beside `path` and hold its lock, which tells remove_left that it is being written."""
    while True:
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, mode)
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # remove_left removed it before it was locked


def remove_left(folder: Path) -> None:
    """Remove the part files that killed processes left below a folder, but none that is being written."""
    # Somebody else may have put a link or a pipe there.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for part in folder.rglob(f"*.{'[0-9a-f]' * 16}.part"):
        # NFS grants this lock only on a file that is open for writing.
        with suppress(OSError), os.fdopen(os.open(part, flags), "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def write_whole(path: Path, contents: bytes, *, lasts: bool = True, mode: int = 0o666) -> None:
    """Write a file in one go, as written_whole does. Raises OSError."""
    with written_whole(path, lasts=lasts, mode=mode) as part:
        part.write_bytes(contents)


def opened_log(path: Path) -> BinaryIO:
    """Open a log for appending. Raises OSError, also for a link: its folder may be somebody else's."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def sync(path: Path) -> None:
    """Wait until the file's bytes, or the directory's names, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_room(folder: Path, needed_bytes: int, what: str, otherwise: str = "BENCH_CACHE_DIR") -> None:
    """Raise UserError if `what` needs more bytes than are free on the disk of a folder, which may not exist
    yet. `otherwise`: how the user names another place."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        needed, there = disk_size(needed_bytes), disk_size(free, needed_bytes)
        raise UserError(
            f"{what} needs about {needed} under {folder}, where {there} are free; free some, "
            f"or name another place: {otherwise}"
        )


def disk_size(count: int, beside: int = 0) -> str:
    """Return a number of bytes in decimal GB, or MB below 100 MB. `beside`: a number of bytes whose unit to
    use instead."""
    size, unit = (1e9, "GB") if (beside or count) >= 1e8 else (1e6, "MB")
    return f"{count / size:.1f} {unit}"
