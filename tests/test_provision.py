"""What deployments need, found or refused; the compiled program of the reference engine is the example."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_command import Place, bench, quick
from reference_serving import native_program

from engines import ENGINES, weights
from engines.reference import Options
from harness.contracts import Deployment, EngineTerms, InstallSpec
from harness.errors import MissingError
from harness.install import install
from harness.provision import Provisions, provide


def ignore(line: str) -> None:
    pass


def deployment(options: Options) -> Deployment:
    return Deployment("reference", "-", "-", EngineTerms(), options, options.program)


PYTHON, NATIVE = deployment(Options()), deployment(Options(program="native"))


def provided(cache: Path, *deployments: Deployment) -> Provisions:
    return provide(deployments, weights, cache, ignore, has_device=False)


def test_a_program_that_must_be_compiled_is_never_made_without_being_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"^reference\.program=native: .*`bench install reference --program native`$"
    ):
        provided(tmp_path, PYTHON, NATIVE)
    assert not (tmp_path / "engines").exists()


def test_two_programs_of_one_engine_stand_side_by_side(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    native_program(tmp_path_factory)  # skips where no compiler is
    spec = ENGINES["reference"].install("native", "cpu")
    assert isinstance(spec, InstallSpec)
    made = install(tmp_path, spec, ignore)
    both = provided(tmp_path, PYTHON, NATIVE)
    assert both.environment_of(PYTHON) is None
    assert both.environment_of(NATIVE) == made
    assert both.versions == {"reference native": made.versions}
    assert both.devices_of(NATIVE, (0,)) == both.devices_of(PYTHON, (0,)) == ()


def test_the_native_program_is_installed_measured_and_removed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    native_program(tmp_path_factory)
    place = Place(tmp_path)
    wanted = quick("reference.program=native,python")
    refused = bench(place, "run", *wanted, "--output", place.run_dir)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "run `bench install reference --program native`" in refused.stderr
    assert not place.run_dir.exists()
    assert bench(place, "install", "reference").returncode == 0
    assert "native: installed" in bench(place, "list", "engines").stdout
    done = bench(place, "run", *wanted, "--output", place.run_dir)
    assert done.returncode == 0, done.stderr
    labels = {start["deployment"]["label"] for start in place.starts()}
    assert labels == {"reference program=native", "reference program=python"}
    for start in place.starts():
        folder = next(place.run_dir.glob(f"starts/{start['index']:02d}-*"))
        assert (folder / "sends.bin").stat().st_size > 1000
    assert all(cell["status"] == "completed" for cell in place.cells().values())
    assert "cc" in place.run()["environment"]["engine_packages"]["reference native"]
    assert "freed" in bench(place, "install", "reference", "--program", "native", "--remove").stdout
    assert "native: no" in bench(place, "list", "engines").stdout


def test_a_program_that_an_engine_does_not_have_is_the_users_mistake(tmp_path: Path) -> None:
    refused = bench(Place(tmp_path), "install", "reference", "--program", "rust")
    assert refused.returncode == 2
    assert "--program rust: reference has no such program; choose from python, native" in refused.stderr
    needless = bench(Place(tmp_path), "install", "reference", "--program", "python")
    assert (needless.returncode, needless.stdout) == (0, "reference needs no environment of its own\n")
