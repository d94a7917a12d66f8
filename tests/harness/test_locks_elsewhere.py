"""What bench does on file systems that have no locks, or only some, as NFS and Lustre may be mounted."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bench_command import Place, bench, quick
from places import TESTS

from serving_bench.harness.errors import UserError
from serving_bench.harness.store import checksums

_IMPORTS = "from pathlib import Path\nfrom serving_bench.harness.whole_files import *\n"
_HELD = f"{_IMPORTS}with locked(Path('held')): pass"
_SWEPT = f"{_IMPORTS}remove_left(Path())"


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment in which locks are those of another file system; skips without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler to build another flock with")
    library = tmp_path / "flock.so"
    source = TESTS / "support/faults/flock_elsewhere.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def test_a_run_is_refused_in_one_line_that_says_what_works(tmp_path, elsewhere) -> None:
    place = Place(tmp_path)
    done = bench(place, "run", *quick(), "--output", "new/run", **elsewhere, FLOCK_ERRNO=str(errno.ENOLCK))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "new/run: its file system has no locks (No locks available), which bench needs to keep another bench "
        "out; give an --output on another, or move the run there"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_cache_is_refused_in_words_that_say_what_works(tmp_path, elsewhere, number) -> None:
    environment = {**os.environ, **elsewhere, "FLOCK_ERRNO": str(number)}
    done = subprocess.run(
        [sys.executable, "-c", _HELD], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == (
        f"{UserError.__module__}.UserError: held: its file system has no locks ({os.strerror(number)}), "
        "which bench needs to keep another bench out; set BENCH_CACHE_DIR to a folder on another"
    )


def test_nfs_lets_a_run_be_measured_and_a_report_needs_no_locks(tmp_path, elsewhere) -> None:
    place = Place(tmp_path)
    done = bench(place, "run", *quick(), "--output", "here", **elsewhere)
    assert done.returncode == 0, done.stderr
    (tmp_path / "here" / "report.html").unlink()
    done = bench(place, "report", "here", **elsewhere, FLOCK_ERRNO=str(errno.ENOLCK))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "report.html").exists()
    assert checksums.findings(tmp_path / "here") == []


def test_nfs_lets_what_a_killed_bench_began_to_write_be_removed(tmp_path, elsewhere) -> None:
    left = tmp_path / "a.json.0123456789abcdef.part"
    left.touch()
    environment = {**os.environ, **elsewhere}
    subprocess.run([sys.executable, "-c", _SWEPT], env=environment, cwd=tmp_path, check=True)
    assert not left.exists()
