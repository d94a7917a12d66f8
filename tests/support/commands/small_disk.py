"""Makes small disks for tests: file systems in memory, also for a user who may not mount any."""

import gc
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import wait_until

_UNSHARED = ["unshare", "--user", "--map-root-user", "--mount"]
_MOUNTED = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'


def run_on_small_disk(
    folder: Path, size: str, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command for which `folder` is an empty disk of this size (500k, 300m), or skip the test.

    No other process sees the disk.
    """
    _check_namespaces()
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["sh", "-c", _MOUNTED, size, folder]
    return subprocess.run([*_UNSHARED, *mount, *argv], env=environment, capture_output=True, text=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Yield the path of an empty disk of this size, or skip the test.

    It is mounted at `folder`. Where this user may not mount, it is mounted in a namespace, and the path leads
    there through /proc.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            wait_until(lambda: _is_unmounted(folder), 30)
        return
    _check_namespaces()
    # It lasts as long as a process in it.
    lasting = [*_UNSHARED, "sh", "-c", _MOUNTED, size, folder, "sh", "-c", "echo mounted; exec cat"]
    with subprocess.Popen(lasting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holding:
        assert holding.stdout
        assert holding.stdout.readline() == "mounted\n"
        yield Path(f"/proc/{holding.pid}/root{folder}")


def _is_unmounted(folder: Path) -> bool:
    gc.collect()  # an error that is still referred to may hold a file open
    return subprocess.run(["umount", folder], capture_output=True).returncode == 0


def _check_namespaces() -> None:
    can = (
        shutil.which("unshare") and subprocess.run([*_UNSHARED, "true"], capture_output=True).returncode == 0
    )
    if not can:
        pytest.skip("this machine makes no mount namespace for a user: no full disk is tried")
