"""Say beside an answer that files of the run that it is of are not as they were written."""

from pathlib import Path

from harness.cli.terminal import complaints
from harness.contracts import inert
from harness.errors import StoreError
from harness.store import checksums, store
from harness.store.named_files import SUMS_FILE

# What is read in some seconds.
_MOST_BYTES = 8 << 30


def tell_changed(run_dir: Path, *, is_held: bool = False) -> None:
    """Print a line on stderr if files of a run are not as they were written. Reads each of its files once.

    Nothing is said of the page, which is not read, of a run without checksums, and of one that goes on unless
    it `is_held` by this process.
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
            # What a bench that was killed was writing is removed by the next one.
            found = [each for each in checksums.changed(run_dir) if not each.file.endswith(".part")]
            said = checksums.told(run_dir, found)
    except (StoreError, OSError) as error:
        said = f"{run_dir}: its files could not be compared with their checksums ({error})"
    if said:
        complaints.print(inert(said), markup=False)
