"""Warn when files of a run have changed since they were written."""

from pathlib import Path

from harness.cli.terminal import complaints
from harness.contracts import inert
from harness.errors import StoreError
from harness.store import checksums, store
from harness.store.named_files import SUMS_FILE

# Reading this much takes a few seconds.
_MOST_BYTES = 8 << 30


def tell_changed(run_dir: Path, *, is_held: bool = False) -> None:
    """Print a line on stderr if files of a run have changed since they were written. Reads each file once.

    Skips the page, runs without checksums, and runs that another process is measuring. `is_held`: the run is
    locked by this process.
    """
    if not (run_dir / SUMS_FILE).exists() or (not is_held and store.is_going_on(run_dir, "running")):
        return
    try:
        size = sum((run_dir / name).lstat().st_size for name, _ in checksums.files(run_dir))
        if size > _MOST_BYTES:
            said: str | None = (
                f"{run_dir}: {size:,} bytes are not compared here; see `bench verify {run_dir}`"
            )
        else:
            # A killed bench leaves .part files, which the next one removes.
            found = [each for each in checksums.changed(run_dir) if not each.file.endswith(".part")]
            said = checksums.told(run_dir, found)
    except (StoreError, OSError) as error:
        said = f"{run_dir}: its files could not be compared with their checksums ({error})"
    if said:
        complaints.print(inert(said), markup=False)
