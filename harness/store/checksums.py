"""List the SHA-256 of a run's files, as `sha256sum` does, and find the files that have changed since.

SHA256SUMS lists finished files: those of each start and cell that has ended, and run.json and the page once
the run has ended. A file is taken off the list before it changes, so a kill leaves unlisted files and none
that seem changed. New lines are appended; the list is sorted when the run ends. The list finds damage. It is
not a signature: whoever changes a file can change the list.
"""

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.files import MOST_TABLE_BYTES, opened
from serving_bench.harness.store.named_files import (
    CLAIM_FILE,
    DIGEST_FILE,
    LOCK_FILE,
    PAGE_FILE,
    RUN_FILE,
    SUMS_FILE,
)
from serving_bench.harness.whole_files import write_whole

# The files and folders of a run, and what else bench keeps or draws in its directory.
OWN = (RUN_FILE, PAGE_FILE, CLAIM_FILE, "starts", "cells", "reference")
_BESIDE = (SUMS_FILE, LOCK_FILE, DIGEST_FILE, "charts")
# These are written when the run ends.
_ENDS = (RUN_FILE, PAGE_FILE)
_LINE = re.compile(r"([0-9a-f]{64})  (.+)", re.DOTALL)
# A plan of 10,000 cells has 50,000 files, none deeper than cells/001.attempt1/requests.parquet.
_MOST_FILES, _MOST_PARTS = 500_000, 4
# How complete files begin and end.
_ENDS_OF = {".json": (b"{", b"}\n"), ".parquet": (b"PAR1", b"PAR1"), ".html": (b"<!doctype html", b"</html>")}
# How much of a file is read to tell whether it is cut short; bench's records are smaller.
_MOST_READ_BYTES = 1 << 26
_CHUNK_BYTES = 1 << 20

Fault = Literal["changed", "torn", "missing", "unlisted", "damaged", "strange"]
_WHY: Mapping[Fault, str] = {
    "changed": "not what was written",
    "torn": "cut short",
    "missing": "on the list and not there",
    "unlisted": f"not in {SUMS_FILE}: put there later, or the run was cut off before it was whole",
    "damaged": "no list of checksums there",
    "strange": "not a file of bench's: a link, a device or a pipe, or of an absurd size, depth or name",
}


@dataclass(frozen=True)
class Finding:
    """A file of a run that is not as it was written, by its path in the run."""

    file: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.file}: {self.fault} ({_WHY[self.fault]})"


def begin(run_dir: Path) -> None:
    """Begin or continue a run's list, without run.json, which changes from now on."""
    with _alone(run_dir):
        _write(run_dir, [line for line in _lines(run_dir) if not _is_of(line, (RUN_FILE,))])


def end(run_dir: Path) -> None:
    """Add every unlisted file to the list, if there is one."""
    with _alone(run_dir):
        if (run_dir / SUMS_FILE).exists():
            lines = _lines(run_dir)
            listed = {_name(line) for line in lines}
            unlisted = (name for name, is_file in files(run_dir) if is_file and name not in listed)
            _write(run_dir, [*lines, *(_line(run_dir, name) for name in unlisted)])


def unlist(run_dir: Path, *names: str) -> None:
    """Take files and folders that are going to change off the list, if there is one."""
    with _alone(run_dir):
        _take_off(run_dir, names)


def relist(run_dir: Path, *names: str) -> None:
    """List files and folders as they are now, if there is a list."""
    with _alone(run_dir):
        if (run_dir / SUMS_FILE).exists():
            _take_off(run_dir, names)
            _append(run_dir, [_line(run_dir, name) for name, is_file in files(run_dir, names) if is_file])


@contextmanager
def changing(run_dir: Path, name: str) -> Iterator[None]:
    """Keep a file or folder off the list while the block changes it. It stays off if the block raises."""
    with suppress(OSError):  # a full or read-only disk: the block's own error says it better
        unlist(run_dir, name)
    yield
    relist(run_dir, name)


def findings(run_dir: Path) -> list[Finding]:
    """Return the files that are not as they were written, sorted.

    Without a list only torn and strange files are found. Raises StoreError for more files than any run has,
    and for a file of absurd size.
    """
    return compared(run_dir)[0]


def changed(run_dir: Path) -> list[Finding]:
    """Return the findings on the files that a reader of the run uses: without the page and unlisted files."""
    return [each for each in findings(run_dir) if each.fault != "unlisted" and each.file != PAGE_FILE]


def told(run_dir: Path, faults: Sequence[Finding]) -> str | None:
    """Return a line that names the first finding and counts the others; None if there are none."""
    if not faults:
        return None
    more = f", and {len(faults) - 1} more" if faults[1:] else ""
    words = f"not in {SUMS_FILE}" if faults[0].fault == "unlisted" else faults[0].fault
    return f"{run_dir}: {faults[0].file} is {words}{more}; see `bench verify {run_dir}`"


def compared(run_dir: Path) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings and the digest of each file by its name. Reads each file once."""
    has_list = (run_dir / SUMS_FILE).exists()
    listed = on_list(run_dir)
    there = dict(files(run_dir))
    digests = {name: digest(run_dir / name) for name, is_file in there.items() if is_file}
    faults = [Finding(SUMS_FILE, "damaged")] * (not all(map(_name, _lines(run_dir))))
    faults += [Finding(name, "missing") for name in listed if name not in there]
    for name, is_file in there.items():
        if not is_file:
            faults.append(Finding(name, "strange"))
        elif digests[name] != listed.get(name):
            if _is_torn(run_dir / name):
                faults.append(Finding(name, "torn"))
            elif has_list:
                faults.append(Finding(name, "changed" if name in listed else "unlisted"))
    if has_list:
        expected = {*OWN, *_BESIDE, *there}
        faults += [Finding(each, "unlisted") for each in os.listdir(run_dir) if each not in expected]
    return sorted(faults, key=lambda finding: finding.file), digests


def on_list(run_dir: Path) -> dict[str, str]:
    """Return the digest of each file that the list names, by the file's name."""
    return {name: line[:64] for line in _lines(run_dir) if (name := _name(line))}


def files(run_dir: Path, names: Collection[str] = OWN) -> Iterator[tuple[str, bool]]:
    """Yield all files at or below these names, sorted, each with whether bench may have written it.

    Follows no link. Raises StoreError for more files than any run has.
    """
    cut_off = (path.name for path in run_dir.glob("*.part") if path.name.startswith(_ENDS))
    tops = sorted({*names, *cut_off}) if names is OWN else sorted(names)
    for count, entry in enumerate(each for top in tops for each in _walked(run_dir, top)):
        if count == _MOST_FILES:
            raise StoreError(f"{run_dir}: has more than {_MOST_FILES:,} files, more than any run")
        yield entry


def _walked(run_dir: Path, name: str) -> Iterator[tuple[str, bool]]:
    try:
        status = (run_dir / name).lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode) and name.count("/") < _MOST_PARTS:
        for each in sorted(os.listdir(run_dir / name)):
            yield from _walked(run_dir, f"{name}/{each}")
    else:
        yield name, stat.S_ISREG(status.st_mode) and status.st_size <= MOST_TABLE_BYTES and name.isprintable()


def may_hold(name: str) -> bool:
    """Return whether a run may have a file of this name, which is a path in it."""
    top, *inner = name.split("/")
    is_short = all(each.strip(".") and len(each.encode()) < 256 for each in inner)
    return top in (*OWN, *_BESIDE) and len(inner) <= _MOST_PARTS and is_short and name.isprintable()


def check_ours(run_dir: Path) -> None:
    """Raise StoreError for the first file that bench cannot have written, such as a link."""
    for name, is_ours in files(run_dir):
        if not is_ours:
            raise strange(run_dir, name)


def check_unlinked(run_dir: Path) -> None:
    """Raise StoreError if a link, a device or a pipe is where bench may write in a run."""
    for name, is_ours in files(run_dir, (*OWN, *_BESIDE)):
        if not is_ours and not _is_plain((run_dir / name).lstat().st_mode):
            raise strange(run_dir, name)


def _is_plain(mode: int) -> bool:
    # A huge log, or folders that an engine nested deeply, still lie in the run: nothing is written elsewhere.
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def strange(run_dir: Path, name: str) -> StoreError:
    """Return the error for a file that bench cannot have written."""
    return StoreError(f"{run_dir}/{Finding(name, 'strange')}; remove it")


def digest(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits. Raises StoreError for any other."""
    sha256 = hashlib.sha256()
    with opened(path, MOST_TABLE_BYTES, os.O_NOFOLLOW) as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()


def sums_of(digests: Mapping[str, str]) -> bytes:
    """Return the contents of a list, from each file's name and digest."""
    return b"".join(f"{digests[name]}  {name}\n".encode() for name in sorted(digests))


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Lock the list: a `bench report` may change it while the run is still being measured."""
    descriptor = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _line(run_dir: Path, name: str) -> str:
    return f"{digest(run_dir / name)}  {name}"


def _text(run_dir: Path) -> str:
    try:
        with opened(run_dir / SUMS_FILE, flags=os.O_NOFOLLOW) as file:
            return file.read().decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _lines(run_dir: Path) -> list[str]:
    """Return the list's complete lines: bench may have been killed while it wrote the last one."""
    return _text(run_dir).split("\n")[:-1]


def _take_off(run_dir: Path, names: Collection[str]) -> None:
    # Most names were never listed, and searching a long text is much faster than splitting it.
    text = _text(run_dir)
    is_whole = text.endswith("\n") or not text
    if not is_whole or any(f"  {name}" in text for name in names):
        _write(run_dir, [line for line in _lines(run_dir) if not _is_of(line, names)])


def _append(run_dir: Path, lines: Sequence[str]) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(run_dir / SUMS_FILE, flags), "wb") as file:
        file.write(_encoded(lines))
        file.flush()
        os.fsync(file.fileno())


def _write(run_dir: Path, lines: Sequence[str]) -> None:
    write_whole(run_dir / SUMS_FILE, _encoded(sorted(lines, key=lambda line: line[64:])))


def _encoded(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def _name(line: str) -> str | None:
    match = _LINE.fullmatch(line)
    return match[2] if match else None


def _is_of(line: str, names: Collection[str]) -> bool:
    name = _name(line) or ""
    return any(name == each or name.startswith(f"{each}/") for each in names)


def _is_torn(path: Path) -> bool:
    """Return whether an interrupted write left this file: it has a beginning but no end."""
    if path.suffix == ".part":
        return True
    begin, end = _ENDS_OF.get(path.suffix, (b"", b""))
    with opened(path, MOST_TABLE_BYTES, os.O_NOFOLLOW) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - len(end)))
        if file.read() == end:
            return False
        file.seek(0)
        text = file.read(_MOST_READ_BYTES)
    if path.suffix == ".json":
        return _is_cut(text)
    # A page with something after its end was changed, not cut.
    is_begun = begin.startswith(text[: len(begin)].lower() if path.suffix == ".html" else text[: len(begin)])
    return is_begun and not (path.suffix == ".html" and end in text)


def _is_cut(document: bytes) -> bool:
    try:
        msgspec.json.decode(document, type=msgspec.Raw)
    except (ValueError, RecursionError) as error:
        return "truncated" in str(error)
    return False
