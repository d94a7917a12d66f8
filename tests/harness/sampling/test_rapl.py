"""The energy counters of a machine, as files like those of sysfs."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving_bench.harness.sampling.host import PackageEnergy

RANGE_UJ = 262_143_328_850  # of an Intel server


def zone(root: Path, name: str, title: str, energy_uj: int) -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{title}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    count(path, energy_uj)
    return path


def count(path: Path, energy_uj: int) -> None:
    (path / "energy_uj").write_text(f"{energy_uj}\n")


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 4_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 2_500_000)
    zone(tmp_path, "intel-rapl:2", "psys", 90_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    energy = PackageEnergy(tmp_path)
    assert (energy.read_j(), energy.reason) == (7.5, None)
    count(first, 6_000_000)
    assert energy.read_j() == 8.5


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    energy = PackageEnergy(tmp_path)
    seen = []
    for energy_uj in (RANGE_UJ - 1_000_000, 2_000_000, 3_000_000, 1_000_000):
        count(package, energy_uj)
        seen.append(energy.read_j() or 0.0)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert steps == pytest.approx([3, 1, RANGE_UJ / 1e6 - 2])


def test_a_machine_without_counters_has_a_reason(tmp_path: Path) -> None:
    energy = PackageEnergy(tmp_path / "none")
    assert energy.read_j() is None
    assert (
        energy.reason
        == f"this system shows no energy counter of the CPU ({tmp_path / 'none'} has no package)"
    )


def test_counters_that_a_container_hides_have_a_reason(tmp_path: Path) -> None:
    """Docker masks /sys/devices/virtual/powercap, where the links of /sys/class/powercap point to."""
    (tmp_path / "intel-rapl:0").symlink_to(tmp_path / "masked" / "intel-rapl:0")
    energy = PackageEnergy(tmp_path)
    assert energy.read_j() is None
    assert str(energy.reason).startswith("the energy counter of the CPU cannot be read: ")


@contextmanager
def not_as_root() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_counter_that_root_alone_may_read_has_a_reason() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        counter = zone(root, "intel-rapl:0", "package-0", 5) / "energy_uj"
        counter.chmod(0)
        with not_as_root():
            energy = PackageEnergy(root)
            assert energy.read_j() is None
        assert energy.reason == f"{counter} may be read by root only"


def test_a_counter_that_goes_away_is_none_with_a_reason(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    energy = PackageEnergy(tmp_path)
    (package / "energy_uj").unlink()
    assert energy.read_j() is None
    assert "cannot be read" in str(energy.reason)
