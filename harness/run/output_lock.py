"""Lock a run's directory, and remove it if it was made for nothing."""

import os
from collections.abc import Sequence
from contextlib import suppress
from errno import ELOOP
from pathlib import Path
from typing import BinaryIO

from serving_bench.harness.contracts import inert
from serving_bench.harness.errors import UserError
from serving_bench.harness.store.checksums import strange
from serving_bench.harness.store.files import check_regular
from serving_bench.harness.store.named_files import LOCK_FILE
from serving_bench.harness.whole_files import try_lock

_OTHER_DISK = "give an --output on another, or move the run there"


def missing(directory: Path) -> list[Path]:
    """Return the folders that must be made for a directory, innermost first."""
    return [path for path in (directory, *directory.parents) if not path.exists()]


def taken_lock(directory: Path, remedy: str, folders: Sequence[Path] = ()) -> BinaryIO:
    """Make the directory and return its lock file, which holds the lock until it is closed.

    Raises UserError, which names the holder and the remedy, if another bench has the lock; also on a file
    system without locks, where the `folders` made for the run are removed. Raises StoreError if the lock file
    is a link or not a regular file.
    """
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another bench has just removed the directory that it had made
            lock = _opened(directory)
            try:
                _take(lock, directory, remedy, folders)
                # A lock file that was removed before it was locked keeps nobody out.
                if os.path.samestat(os.fstat(lock.fileno()), os.stat(directory / LOCK_FILE)):
                    return lock
            except BaseException:
                lock.close()
                raise
            lock.close()


def _opened(directory: Path) -> BinaryIO:
    # The folder may come from a stranger. Without O_NONBLOCK opening some devices would block for ever.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(directory / LOCK_FILE, flags, 0o600), "rb+", buffering=0)
    except OSError as error:
        if error.errno == ELOOP:
            raise strange(directory, LOCK_FILE) from error
        raise


def _take(lock: BinaryIO, directory: Path, remedy: str, folders: Sequence[Path]) -> None:
    check_regular(directory / LOCK_FILE, lock.fileno())
    try:
        is_ours = try_lock(lock, directory, _OTHER_DISK)
    except UserError:
        remove_made(directory, folders)  # nobody can hold it
        raise
    if not is_ours:
        lock.seek(0)
        owner = inert(lock.read(200).decode(errors="replace")).strip()
        other = f"another bench{owner and f' ({owner})'}"
        raise UserError(f"{directory}: {other} is measuring this run; {remedy}")


def remove_made(directory: Path, folders: Sequence[Path]) -> None:
    """Remove the `folders` made for a run if nothing but its lock is there. The caller must hold the lock."""
    with suppress(OSError):  # the directory may have been moved; the error that ended the run says more
        if folders and {path.name for path in directory.iterdir()} <= {LOCK_FILE}:
            (directory / LOCK_FILE).unlink(missing_ok=True)
            for path in folders:
                path.rmdir()
