"""Write a run into one file to share, and open such a file, which anyone may have made.

A bundle is a tar.gz of one folder with a run's own files and their SHA256SUMS. `tar` unpacks it into a run's
directory. The same run gives the same bytes.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, BinaryIO

from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.store import checksums
from serving_bench.harness.store.files import MOST_TABLE_BYTES, opened
from serving_bench.harness.store.named_files import RUN_FILE, SUMS_FILE, check_place
from serving_bench.harness.store.store import read_run
from serving_bench.harness.whole_files import check_room, written_whole

# Records and logs shrink to a tenth, tables not at all. Small files may grow by 64 MiB more.
_MOST_GROWTH, _MORE_BYTES = 100, 64 << 20
# A file takes more than 512 bytes of a bundle, counting its header and the line with its checksum.
_LEAST_FILE_BYTES, _MORE_FILES = 512, 100
# The header of a file, with one before it for a long name. tarfile trusts the length and number of these.
_HEADER_BYTES = 5 * tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
# gzip's levels to try. 0 does not compress, for logs of equal lines, which would unpack like a bomb.
_LEVELS = (6, 0)


def write_bundle(run_dir: Path, out: Path) -> None:
    """Write a run's own files into a bundle, whole or not at all.

    Raises StoreError if a file is changed, torn or missing by the run's checksums, and UserError if the
    bundle cannot be written.
    """
    check_place(out)
    top = run_dir.resolve().name
    if not _is_plain(top):
        raise UserError(f"{run_dir}: a bundle cannot have the folder's name {top!r}; rename the folder")
    faults, digests = checksums.compared(run_dir)
    if wrong := checksums.told(run_dir, [each for each in faults if each.fault != "unlisted"]):
        raise StoreError(wrong)
    sums = checksums.sums_of(digests)
    sizes = {name: (run_dir / name).stat().st_size for name in digests}
    size = len(sums) + sum(sizes.values())
    check_room(out.absolute().parent, size, "the bundle", "--output FILE")
    made_s = _made_s(run_dir)
    try:
        with written_whole(out) as part:
            part.chmod(0o600)  # requests hold what users said
            for level in _LEVELS:
                with (
                    part.open("wb") as file,
                    gzip.GzipFile("", "wb", level, file, mtime=0) as packed,
                    tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
                ):
                    _add(tar, f"{top}/{SUMS_FILE}", len(sums), made_s, io.BytesIO(sums))
                    for name in digests:
                        with opened(run_dir / name, MOST_TABLE_BYTES) as contents:
                            _add(tar, f"{top}/{name}", sizes[name], made_s, contents)
                if not _is_bomb(part.stat().st_size, size, len(digests)):
                    break
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error


def _made_s(run_dir: Path) -> int:
    record = read_run(run_dir)
    try:
        return int(datetime.fromisoformat(record.ended_at or record.created_at).timestamp())
    except (ValueError, OverflowError) as error:
        raise StoreError(f"{run_dir / RUN_FILE}: damaged ({error})") from error


def _add(tar: tarfile.TarFile, name: str, size: int, made_s: int, contents: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, made_s, 0o600
    tar.addfile(member, contents)


@contextmanager
def opened_run(path: Path, *, is_checked: bool = True) -> Iterator[Path]:
    """Give the directory of a run. A bundle is unpacked into a temporary one that lasts until the block ends.

    Raises StoreError for a damaged or hostile bundle; with `is_checked` also if a file does not match its
    checksum.
    """
    if not path.exists():
        cause = "no run here (no such file or directory)"
        raise StoreError(f"{path}: {cause}; give a directory that `bench run` made, or a bundle of one")
    if not path.is_file() or path.name in checksums.OWN:
        yield path
        return
    with TemporaryDirectory(prefix="bench-") as folder:
        run_dir = _unpacked(path, Path(folder))
        try:
            if is_checked and (wrong := checksums.findings(run_dir)):
                raise StoreError(f"{path}: damaged: {wrong[0]}")
            yield run_dir
        except StoreError as error:
            raise StoreError(str(error).replace(folder, str(path))) from error


def _unpacked(path: Path, folder: Path) -> Path:
    """Unpack a bundle into `folder` and return the run's directory in it."""
    tops, names, listed, packed_bytes = set[str](), set[str](), {SUMS_FILE: ""}, path.stat().st_size
    try:
        with (
            opened(path, MOST_TABLE_BYTES) as file,
            gzip.GzipFile(fileobj=file) as unpacked,
            tarfile.open(fileobj=(parts := _InParts(unpacked)), mode="r:") as tar,
        ):
            for member in tar:
                top, name = _place(path, member)
                size = member.offset_data + member.size
                if _is_bomb(packed_bytes, size, len(listed)):
                    message = f"{size:,} and {len(listed):,} files"
                    raise UserError(f"{path}: {packed_bytes:,} bytes that become {message} are not a run")
                if why := _why_not(top, name, tops, names, listed):
                    raise _no_bundle(path, f"{member.name!r} is {why}")
                tops.add(top)
                names.add(name.casefold())
                parts.left_bytes = member.size + _HEADER_BYTES
                _write(tar, member, folder / member.name)
                if name == SUMS_FILE:
                    listed = checksums.on_list(folder / top)
            _check_end(path, file, unpacked)
    except (tarfile.TarError, gzip.BadGzipFile) as error:
        why = str(error).partition(" (b'")[0]  # gzip quotes bytes
        raise (StoreError(f"{path}: damaged ({why})") if names else _no_bundle(path, why)) from error
    except (EOFError, zlib.error, ValueError, FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path}: damaged ({error})") from error
    except OSError as error:
        message = f"{path}: cannot be unpacked into {folder}: {error.strerror or error}"
        raise UserError(f"{message}; TMPDIR=DIR names another place") from error
    run_dir = folder.joinpath(*tops)
    if not (run_dir / SUMS_FILE).is_file():
        raise _no_bundle(path, f"{SUMS_FILE} is missing")
    return run_dir


def _no_bundle(path: Path, why: str) -> StoreError:
    return StoreError(f"{path}: not a bundle ({why}); `bench bundle DIR` makes one of a run")


def _place(path: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    """Return the run's name and the file's path in it. Raises StoreError for a member that no bundle has."""
    top, *parts = member.name.split("/")
    is_own = parts[:1] == [SUMS_FILE] or (bool(parts) and parts[0] in checksums.OWN)
    # A negative size would let later members exceed the limit on the unpacked size.
    is_regular = member.type == tarfile.REGTYPE and member.sparse is None and member.size >= 0
    if not (all(map(_is_plain, (top, *parts))) and is_own and is_regular):
        raise _no_bundle(path, f"{member.name!r} is not a file of a run")
    return top, "/".join(parts)


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and name.isprintable()


def _why_not(
    top: str, name: str, tops: Collection[str], names: Collection[str], listed: Collection[str]
) -> str | None:
    """Return why a bundle that has these names already cannot have this file too; None if it can."""
    if name.casefold() in names:
        return "there twice"
    if tops and top not in tops:
        return "in a second folder"
    return None if name in listed else f"not on its list {SUMS_FILE}, which comes first"


def _check_end(path: Path, file: BinaryIO, unpacked: gzip.GzipFile) -> None:
    """Raise StoreError if more than zeros follow the last file, or anything follows the compressed data."""
    rest = unpacked.read(tarfile.RECORDSIZE + 1)
    file.seek(-4, io.SEEK_END)  # the length of the data, as gzip stores it
    is_end = int.from_bytes(file.read(), "little") == unpacked.tell() % 2**32
    if not is_end or len(rest) > tarfile.RECORDSIZE or any(rest):
        raise StoreError(f"{path}: damaged (bytes after the end of the archive)")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    contents = tar.extractfile(member)
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("xb") as file:
        while contents and (chunk := contents.read(_CHUNK_BYTES)):
            file.write(chunk)


def _is_bomb(packed_bytes: int, size: int, files: int) -> bool:
    is_large = size > _MORE_BYTES + _MOST_GROWTH * packed_bytes
    return is_large or files > _MORE_FILES + packed_bytes // _LEAST_FILE_BYTES


class _InParts(io.RawIOBase):
    """A stream that gives no more than `left_bytes`: tarfile trusts the lengths in headers."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self.stream, self.left_bytes = stream, _HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left_bytes:
            raise tarfile.ReadError(f"a header of more than {_HEADER_BYTES:,} bytes")
        self.left_bytes -= size
        return self.stream.read(size)

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.stream.seek(offset, whence)
