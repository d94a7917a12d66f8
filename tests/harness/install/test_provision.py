"""What deployments need, found or refused; the compiled program of the reference engine is the example."""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import toy_engine
from bench_command import BENCH, Place, bench, quick, told
from progress_lines import KeptLines
from reference_serving import native_program
from shell_script import shell_script
from small_disk import run_on_small_disk
from toy_engine import Toy
from wheels import make_lock, make_wheel

from serving_bench import engines
from serving_bench.engines import ENGINES
from serving_bench.engines.model import weights
from serving_bench.engines.reference.engine import Options
from serving_bench.harness.contracts import (
    Adapter,
    AdapterFile,
    Deployment,
    EngineTerms,
    InstallSpec,
    Launcher,
    Reason,
    Weights,
    WeightsFile,
    Workshop,
)
from serving_bench.harness.errors import MissingError, UserError
from serving_bench.harness.install import install as installing
from serving_bench.harness.install.builds import Build, check_builds, uses_devices, why_not_on
from serving_bench.harness.install.install import install
from serving_bench.harness.install.provision import SMALL_BYTES, device_of, lacking, provide, provide_weights
from serving_bench.harness.install.provisions import Provisions
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.units import size_text


def deployment(options: Options) -> Deployment:
    return Deployment("reference", "-", "-", EngineTerms(), options, options.program)


PYTHON, NATIVE = deployment(Options()), deployment(Options(program="native"))


def provided(cache: Path, *deployments: Deployment) -> Provisions:
    return provide(deployments, weights, cache, KeptLines(), has_device=False)


def test_a_program_that_must_be_compiled_is_never_made_without_being_asked_for(tmp_path: Path) -> None:
    said = r"^reference native: not built here.*`bench install reference --program native` "
    with pytest.raises(MissingError, match=said):
        provided(tmp_path, PYTHON, NATIVE)
    assert not (tmp_path / "engines").exists()


def test_two_programs_of_one_engine_stand_side_by_side(tmp_path, tmp_path_factory):
    native_program(tmp_path_factory)  # skips where no compiler is
    spec = ENGINES["reference"].install("native", "cpu")
    assert isinstance(spec, InstallSpec)
    made = install(tmp_path, spec, KeptLines())
    both = provided(tmp_path, PYTHON, NATIVE)
    assert both.environment_of(PYTHON) is None
    assert both.environment_of(NATIVE) == made
    assert both.versions == {"reference native": made.versions}
    assert not uses_devices(NATIVE)
    assert not uses_devices(PYTHON)


def test_the_native_program_is_installed_measured_and_removed(tmp_path, tmp_path_factory):
    native_program(tmp_path_factory)
    place = Place(tmp_path)
    wanted = quick("reference.program=native,python")
    refused = told(place, "run", *wanted, "--output", place.run_dir)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "run `bench install reference --program native`" in refused.stderr
    assert not place.run_dir.exists()
    assert bench(place, "install", "reference").returncode == 0
    assert _state(place, "native") == "installed"
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
    assert _state(place, "native") == "not installed"


def _state(place: Place, program: str) -> str:
    engines = json.loads(told(place, "list", "engines", "--json").stdout)
    [state] = [
        each["state"] for engine in engines for each in engine["programs"] if each["program"] == program
    ]
    return str(state)


def test_a_program_that_an_engine_does_not_have_is_the_users_mistake(tmp_path: Path) -> None:
    refused = told(Place(tmp_path), "install", "reference", "--program", "rust")
    assert refused.returncode == 2
    assert "--program rust: reference has no such program; choose from python, native" in refused.stderr
    needless = told(Place(tmp_path), "install", "reference", "--program", "python")
    assert needless.stdout == "reference (python) needs no environment of its own\n"
    assert needless.returncode == 0


# --- what the user brought, and what is too much --------------------------------------------------


class Shelf:
    """A WeightsStore with all weights in one file; `tool` is what making them would need."""

    def __init__(self, file: Path, tool: InstallSpec | None = None) -> None:
        self.file = file
        self.tool = tool

    def find(self, weights: Weights, cache: Path) -> WeightsFile | None:
        return None if self.tool else WeightsFile(self.file, 1)

    def missing_bytes(self, weights: Weights, cache: Path) -> int | None:
        return 1

    def disk_bytes(self, asked: Iterable[Weights], cache: Path) -> int:
        return sum(self.missing_bytes(each, cache) or 0 for each in asked)

    def tools_for(self, weights: Weights, cache: Path) -> list[InstallSpec]:
        return [self.tool] if self.tool else []

    def calls_hub(self, weights: Weights, cache: Path) -> bool:
        return False

    def prepare(self, weights: Weights, cache: Path, workshop: Workshop) -> WeightsFile:
        assert self.tool
        return WeightsFile(workshop.tool(self.tool), 1)

    def adapted(self, adapter: Adapter, weights: Weights, cache: Path) -> AdapterFile:
        return AdapterFile(adapter.name, self.file.with_name(f"{weights.quantization}-{adapter.name}"), 8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> InstallSpec:
    folder = tmp_path_factory.mktemp("tiny")
    wheel = make_wheel(folder, "tinything", {"tinything.py": ""})
    return InstallSpec("toy-first-cpu", make_lock(folder, "tinything", wheel), "import tinything", 1_000)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tiny: InstallSpec, quick_venv: None) -> Toy:
    engine = Toy({("first", "cpu"): tiny})
    monkeypatch.setitem(ENGINES, "toy", engine)
    return engine


def toy_of(
    launcher: Launcher = "native",
    program: str = "first",
    environment: str | None = None,
    image: str | None = None,
) -> Deployment:
    options = toy_engine.Options(program, environment, image)
    return Deployment("toy", "m", "fp16", EngineTerms(launcher=launcher), options, "toy fp16")


def provided_toys(cache: Path, *deployments: Deployment) -> Provisions:
    return provide(deployments, Shelf(cache), cache, KeptLines(), has_device=False)


@pytest.fixture
def own_environment(tmp_path: Path) -> Path:
    """A directory that is used as an environment: only its Python matters."""
    folder = tmp_path / "own"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    return folder


@pytest.fixture
def own_program(tmp_path: Path) -> Path:
    return shell_script(tmp_path / "server", "")


def test_environments_and_programs_of_the_users_stand_beside_benchs_own(
    tmp_path: Path, toy: Toy, tiny: InstallSpec, own_environment: Path, own_program: Path
) -> None:
    made = install(tmp_path, tiny, KeptLines())
    before = sorted(own_environment.rglob("*"))
    ours, theirs = toy_of(), toy_of(environment=str(own_environment))
    alone, contained = toy_of(program=str(own_program)), toy_of("docker", image="toys:2")
    all_of_them = provided_toys(tmp_path, ours, theirs, alone, contained)
    assert all_of_them.environment_of(ours) == made
    found = all_of_them.environment_of(theirs)
    assert found is not None
    assert (found.python, found.program) == (own_environment / "bin" / "python", None)
    assert found.name is None
    assert "tinything" not in found.versions
    found = all_of_them.environment_of(alone)
    assert found is not None
    assert (found.python, found.program) == (None, own_program)
    assert found.versions["server"].startswith("sha256 ")
    assert all_of_them.environment_of(contained) is None
    assert set(all_of_them.versions) == {"toy", f"toy {own_environment}", f"toy {own_program}"}
    assert sorted(own_environment.rglob("*")) == before


def test_what_the_user_brought_and_containers_use_the_devices_that_bench_s_build_cannot(
    toy: Toy, own_program: Path
) -> None:
    assert not uses_devices(toy_of())
    assert uses_devices(toy_of(environment="/opt/toys"))
    assert uses_devices(toy_of(program=str(own_program)))
    assert uses_devices(toy_of("docker"))


def test_a_container_needs_nothing_installed(tmp_path: Path, toy: Toy) -> None:
    toy.installs = {}
    assert provided_toys(tmp_path, toy_of("docker")).environments == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"environment": "{tmp}/absent"}, r"toy\.environment=.*/absent: no Python environment"),
        ({"environment": "{tmp}"}, "no Python environment with bin/python there"),
        ({"program": "{tmp}/absent"}, r"toy\.program=.*/absent: no file that can be executed"),
        ({"program": "{tmp}"}, "no file that can be executed; give a program's"),
        ({"program": "{tmp}/script"}, "no file that can be executed"),
        ({"program": "/bin/sh", "environment": "{tmp}"}, "give one of them"),
    ],
)
def test_what_the_user_brought_is_looked_at_before_anything_starts(
    tmp_path: Path, toy: Toy, options: dict[str, str], said: str
) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    deployment = toy_of(
        program=options.get("program", "first").format(tmp=tmp_path),
        environment=options["environment"].format(tmp=tmp_path) if "environment" in options else None,
    )
    with pytest.raises(UserError, match=said):
        check_builds("cpu", [deployment])
    check_builds("cpu", [dataclasses.replace(deployment, terms=EngineTerms(launcher="docker"))])


def test_an_environment_whose_python_does_not_run_is_the_users_mistake(tmp_path: Path, toy: Toy) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    shell_script(python, "echo broken >&2\nexit 3")
    with pytest.raises(UserError, match=r"toy\.environment=.*/bin/python does not run \(broken\)"):
        provided_toys(tmp_path, toy_of(environment=str(tmp_path)))


def test_a_program_that_the_users_environment_lacks_is_named(
    tmp_path: Path, toy: Toy, tiny: InstallSpec, own_environment: Path
) -> None:
    toy.installs = {("first", "cpu"): dataclasses.replace(tiny, program="bin/toyserver")}
    theirs = toy_of(environment=str(own_environment))
    with pytest.raises(UserError, match=r"toy\.environment=.*own: has no bin/toyserver"):
        provided_toys(tmp_path, theirs)
    (own_environment / "bin" / "toyserver").symlink_to("/bin/sh")
    found = provided_toys(tmp_path, theirs).environment_of(theirs)
    assert found is not None
    assert found.program == own_environment / "bin" / "toyserver"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_built": True}, r"^toy second: not built here.*run `bench install toy --program second`"),
        (
            {"size_bytes": 3 << 30},
            r"^toy second: not installed; run `bench install toy --program second` \(3.0",
        ),
    ],
)
def test_what_is_compiled_or_large_is_never_installed_without_being_asked_for(
    tmp_path: Path, toy: Toy, tiny: InstallSpec, change: dict[str, int], said: str
) -> None:
    toy.installs = {("second", "cpu"): dataclasses.replace(tiny, **change)}  # type: ignore[arg-type]
    with pytest.raises(MissingError, match=said):
        provided_toys(tmp_path, toy_of(program="second"))
    assert not (tmp_path / "engines").exists()


class HubShelf(Shelf):
    """Some weights are there; the others are the hub's, each of a GiB."""

    def find(self, weights: Weights, cache: Path) -> WeightsFile | None:
        return WeightsFile(self.file, 1) if weights.quantization == "fp16" else None

    def missing_bytes(self, weights: Weights, cache: Path) -> int | None:
        return 1 << 30

    def calls_hub(self, weights: Weights, cache: Path) -> bool:
        return True


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (
            [("toy", "awq")],
            "m at awq: not here; run `bench prepare engine=toy model=m quantization=awq` "
            "(1.0 GiB to download and write)",
        ),
        (
            [("toy", "awq"), ("toy", "awq"), ("vllm", "awq"), ("vllm", "gptq")],
            "m at awq, m at gptq: not here; "
            "run `bench prepare engine=toy,vllm model=m quantization=awq,gptq` "
            "(up to 2.0 GiB to download and write)",
        ),
    ],
)
def test_all_weights_that_a_run_does_not_fetch_are_one_command(
    tmp_path: Path, toy: Toy, lacking: list[tuple[str, str]], said: str
) -> None:
    here = toy_of("docker")
    absent = [
        Deployment(name, "m", quantization, here.terms, ENGINES[name].options(), "")
        for name, quantization in lacking
    ]
    with pytest.raises(MissingError) as caught:
        provide([here, *absent], HubShelf(tmp_path), tmp_path, KeptLines(), has_device=False)
    assert str(caught.value) == said


def test_what_is_not_here_yet_is_told_with_its_size_and_who_makes_it(tmp_path, toy: Toy, tiny: InstallSpec):
    def told(shelf: Shelf, *deployments: Deployment) -> list[tuple[str, str]]:
        return list(lacking(deployments, shelf, tmp_path, has_device=False))

    absent = dataclasses.replace(toy_of("docker"), quantization="awq")
    of_hub = "about 1,024 MiB to download and write, run `bench prepare model=m engine=toy quantization=awq`"
    assert told(HubShelf(tmp_path), absent) == [(f"weights are not prepared yet: {of_hub}", "toy fp16")]
    size = size_text(tiny.size_bytes)
    by_run = (f"toy is not installed yet: about {size}, done by `bench run`", "toy fp16")
    assert told(Shelf(tmp_path), toy_of()) == [by_run]
    toy.installs = {("second", "cpu"): dataclasses.replace(tiny, is_built=True)}
    [(by_hand, _)] = told(Shelf(tmp_path), toy_of(program="second"))
    assert by_hand.endswith("run `bench install toy --program second`")
    toy.installs = {("first", "cpu"): tiny}
    provided_toys(tmp_path, toy_of())
    assert told(Shelf(tmp_path), toy_of()) == []
    making = "weights are not prepared yet: about 0.0 MiB to download and write, done by `bench run`"
    assert told(Shelf(tmp_path, tiny), toy_of()) == [(making, "toy fp16")]


def test_the_weights_of_a_draft_are_provided_like_any(tmp_path: Path, toy: Toy) -> None:
    terms = dataclasses.replace(toy_of("docker").terms, speculation="draft:small@awq")
    drafted = dataclasses.replace(toy_of("docker"), terms=terms)
    found = provide([drafted], Shelf(tmp_path), tmp_path, KeptLines(), has_device=False)
    assert [(each.model, each.quantization) for each in found.weights] == [("m", "fp16"), ("small", "awq")]
    assert found.weights_of(drafted.draft) == found.weights[Weights("small", "awq", "safetensors")]
    assert found.weights_of(toy_of("docker").draft) is None
    with pytest.raises(MissingError, match=r"^small at awq: not here; .*model=small "):
        provide([drafted], HubShelf(tmp_path), tmp_path, KeptLines(), has_device=False)


def test_a_small_environment_is_installed_by_the_run_itself(tmp_path: Path, toy: Toy, tiny: InstallSpec):
    found = provided_toys(tmp_path, toy_of()).environment_of(toy_of())
    assert found is not None
    assert found.versions["tinything"] == "1.0"
    assert installing.installed(tmp_path, tiny) is not None


def test_a_run_installs_no_more_than_its_limit_whatever_mending_finds_necessary(
    tmp_path: Path, toy: Toy, tiny: InstallSpec
) -> None:
    mend = tmp_path / "mend_toys.py"
    mend.write_text("import os\nprint('limit', os.environ.get('BENCH_INSTALL_LIMIT_BYTES'))\n")
    toy.installs = {("first", "cpu"): dataclasses.replace(tiny, mend=(mend,))}
    lines = KeptLines()
    provide([toy_of()], Shelf(tmp_path), tmp_path, lines, has_device=False)
    assert f"limit {SMALL_BYTES}" in lines


def test_a_tool_that_must_be_compiled_is_named_with_its_command(
    tmp_path: Path, toy: Toy, tiny: InstallSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = dataclasses.replace(tiny, environment="tool-toys-cpu", is_built=True)
    monkeypatch.setattr(engines, "TOOLS", {"toys": tool})
    with pytest.raises(MissingError, match=r"^tool-toys-cpu: not built here.*run `bench install toys` "):
        provide_weights(Weights("m", "awq", "safetensors"), Shelf(tmp_path, tool), tmp_path, KeptLines())
    toy.installs = {("second", "cpu"): dataclasses.replace(tool, environment="toy-second-cpu")}
    shelf = Shelf(tmp_path, dataclasses.replace(tool, environment="toy-second-cpu"))
    with pytest.raises(MissingError, match=r"run `bench install toy --program second`"):
        provide_weights(Weights("m", "awq", "safetensors"), shelf, tmp_path, KeptLines(), limit_bytes=None)


def test_a_run_names_a_tool_to_build_before_it_fetches_anything(
    tmp_path: Path, toy: Toy, tiny: InstallSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = dataclasses.replace(tiny, environment="tool-toys-cpu", is_built=True)
    monkeypatch.setattr(engines, "TOOLS", {"toys": tool})
    shelf = Shelf(tmp_path, tool)
    with pytest.raises(MissingError, match=r"^m at fp16 needs tool-toys-cpu: not built here"):
        provide([toy_of()], shelf, tmp_path / "cache", KeptLines(), has_device=False)
    assert not (tmp_path / "cache").exists()
    told = [said for said, _ in lacking([toy_of()], shelf, tmp_path / "cache", has_device=False)]
    assert [said.rpartition(", ")[2] for said in told] == ["done by `bench run`", "run `bench install toys`"]


def test_the_disk_is_checked_for_the_sum_of_what_is_missing_before_any_download(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for command in (("run", "--output", place.run_dir), ("prepare", "engine=llama_cpp")):
        argv = [BENCH, *command, "model=smollm2-135m", "quantization=fp16,gguf-q8_0", "device=cpu"]
        done = run_on_small_disk(place.cache, "300m", argv, place.environment())
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "llama_cpp-xllamacpp-cpu, smollm2-135m at fp16, smollm2-135m at gguf-q8_0) need" in done.stderr
        assert re.search(
            rf"about 0\.\d GB under {place.cache}, where 0\.3 GB are free; free some", done.stderr
        )
    assert not place.run_dir.exists()


def test_what_cannot_be_started_here_has_a_reason(toy: Toy, own_program: Path) -> None:
    assert why_not_on((), toy_of()) is None
    assert why_not_on((), toy_of(program="second")) == Reason("there is no second toy for a cpu device")
    assert why_not_on((), toy_of(program=str(own_program))) is None
    assert why_not_on((), toy_of("docker")) == Reason("toys have no image for the CPU; give toy.image=IMAGE")
    assert why_not_on((), toy_of("docker", image="toys:2")) is None
    attached = dataclasses.replace(toy_of(program="second"), terms=EngineTerms(base_url="http://h/v1"))
    assert why_not_on((), attached) is None


def test_with_a_device_what_serves_on_the_cpu_only_is_left_out(
    toy: Toy, tiny: InstallSpec, own_program: Path
) -> None:
    on_cpu, on_device = partial(why_not_on, ()), partial(why_not_on, (0,))
    assert on_cpu(toy_of()) is None
    assert on_device(toy_of()) == Reason("there is no first toy for a cuda device; device=cpu works")
    toy.installs = {**toy.installs, ("second", "cuda"): tiny}
    assert on_device(toy_of()) == Reason(
        "there is no first toy for a cuda device; toy.program=second or device=cpu works"
    )
    elsewhere = [toy_of(program="second"), toy_of(program=str(own_program)), toy_of("docker")]
    assert [on_device(each) for each in (*elsewhere, PYTHON, NATIVE)] == [None] * 5
    assert on_device(dataclasses.replace(toy_of(), terms=EngineTerms(base_url="http://h/v1"))) is None


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        (["engine=llama_cpp"], "cpu"),  # the default program serves on the CPU only
        (["engine=llama_cpp,reference"], "cpu"),
        (["engine=llama_cpp,vllm", "quantization=bf16"], "auto"),
        (["engine=llama_cpp", "llama_cpp.program=llama-server"], "auto"),
        (["engine=llama_cpp", "engine.launcher=docker"], "auto"),
        (["engine=llama_cpp", "device=0"], "0"),
    ],
)
def test_a_run_of_nothing_but_cpu_builds_is_on_the_cpu(asked: list[str], device: str) -> None:
    assert device_of(config.settings(overrides.parse(asked))) == device


def test_llama_cpp_with_a_device_names_the_program_that_uses_it() -> None:
    options = ENGINES["llama_cpp"].options()
    terms = EngineTerms(launcher="native")
    reason = why_not_on((0,), Deployment("llama_cpp", "m", "gguf-q4_k_m", terms, options, ""))
    assert reason is not None
    assert str(reason).endswith("; llama_cpp.program=llama-server or device=cpu works")


def test_builds_are_told_apart_by_all_that_makes_them() -> None:
    labels = [Build("reference", "python").label, Build("reference", "native").label]
    labels += [Build("reference", "python", "/opt/a").label, Build("reference", "/opt/b").label]
    assert labels == ["reference", "reference native", "reference /opt/a", "reference /opt/b"]


def test_adapters_are_provided_for_the_weights_of_each_deployment(tmp_path: Path, toy: Toy) -> None:
    adapters = (Adapter("random-0"), Adapter("random-1"))
    started = dataclasses.replace(toy_of("docker"), adapters=adapters)
    running = dataclasses.replace(started, terms=EngineTerms(base_url="http://127.0.0.1:1/v1"))
    found = provide([started, running], Shelf(tmp_path / "w"), tmp_path, KeptLines(), has_device=False)
    paths = [each.path.name for each in found.adapters_of(started)]
    assert paths == [f"{started.quantization}-random-0", f"{started.quantization}-random-1"]
    assert found.adapters_of(running) == ()
