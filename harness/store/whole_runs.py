"""Write the directory of a merged or imported run whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import CellError
from harness.store.named_files import LOCK_FILE


@contextmanager
def written_or_empty(directory: Path, then: str) -> Iterator[None]:
    """Remove everything but the lock from a run's directory if the block raises.

    An OSError becomes a CellError with the reason, followed by `then`, which says what that leaves.
    """
    try:
        yield
    except BaseException as error:
        for path in directory.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK_FILE:
                path.unlink()
        if not isinstance(error, OSError):
            raise
        why = os.strerror(error.errno) if error.errno else error  # pyarrow's messages are long
        raise CellError(f"{directory}: cannot be written: {why}; {then}") from error
