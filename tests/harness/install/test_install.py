"""Environments of engines: real venvs and uv, on a wheel made here."""

import dataclasses
import fcntl
import hashlib
import inspect
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_http import fake_http, files_in
from progress_lines import KeptLines
from waiting import wait_until
from wheels import make_lock, make_wheel

from serving_bench.harness.contracts import InstallSpec
from serving_bench.harness.errors import MissingError, UserError
from serving_bench.harness.install import packages
from serving_bench.harness.install.install import (
    Environment,
    cache_dir,
    compiled_dir,
    compiler,
    environment_dir,
    install,
    installed,
    remove,
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("wheel"), "tinything", {"tinything.py": "ANSWER = 42\n"})


@pytest.fixture
def spec(tmp_path: Path, wheel: Path, quick_venv: None) -> InstallSpec:
    lock = make_lock(tmp_path, "tinything", wheel)
    return InstallSpec("tiny-cpu", lock, "import tinything; assert tinything.ANSWER == 42", 1_000)


@dataclasses.dataclass(frozen=True)
class Made:
    cache: Path
    spec: InstallSpec
    environment: Environment
    lines: KeptLines


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Made:
    folder = tmp_path_factory.mktemp("made")
    spec = InstallSpec("tiny-cpu", make_lock(folder, "tinything", wheel), "import tinything", 1_000)
    lines = KeptLines()
    return Made(folder / "cache", spec, install(folder / "cache", spec, lines), lines)


def test_installed_package_can_be_imported_by_the_new_interpreter(made: Made) -> None:
    code = "import tinything; print(tinything.ANSWER)"
    assert made.environment.python is not None
    done = subprocess.run([made.environment.python, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout == "42\n"


def test_environment_says_what_is_in_it(made: Made) -> None:
    assert made.environment.versions["tinything"] == "1.0"
    assert made.environment.size_bytes > 1_000_000  # pip alone is more
    assert made.environment.folder == made.cache / "engines" / "tiny-cpu"
    assert made.environment.python is not None
    assert made.environment.python.is_relative_to(made.environment.folder)
    assert made.environment.program is None


def test_progress_is_few_lines_and_the_log_keeps_what_uv_said(made: Made) -> None:
    said = [line.split(" in ")[0] for line in made.lines if not line.endswith(" so far)")]
    assert said[1:] == ["Resolved 1 package", "Prepared 1 package", "Installed 1 package"]
    assert "+ tinything==1.0" in environment_dir(made.cache, made.spec, ".log").read_text()
    assert not (made.environment.folder / "tmp").exists()


def test_installed_again_does_nothing(made: Made) -> None:
    lines = KeptLines()
    assert install(made.cache, made.spec, lines) == made.environment
    assert lines == []


def test_mending_scripts_run_in_the_environment_before_the_check_and_count_for_it(
    tmp_path: Path, spec: InstallSpec
) -> None:
    mend = tmp_path / "mend_tiny.py"
    mend.write_text("import pathlib, tinything as t\npathlib.Path(t.__file__).with_name('more.py').touch()\n")
    mended = dataclasses.replace(spec, mend=(mend,), check="import more")
    lines = KeptLines()
    install(tmp_path, mended, lines)
    assert "mending: mend_tiny.py" in lines
    assert installed(tmp_path, spec) is None
    mend.write_text(mend.read_text() + "# more\n")
    assert installed(tmp_path, mended) is None


def printed(tmp_path: Path, spec: InstallSpec, variable: str) -> str:
    """What a script that mends is given in a variable, each time a fresh install."""
    mend, lines = tmp_path / "mend_tiny.py", KeptLines()
    before = mend.read_text() if mend.exists() else ""
    mend.write_text(f"import os\nprint('given:', os.environ.get({variable!r}))\n# after {len(before)}\n")
    install(tmp_path, dataclasses.replace(spec, mend=(mend,)), lines)
    return next(line.removeprefix("given: ") for line in lines if line.startswith("given: "))


def test_a_build_is_told_to_run_a_compiler_for_each_processor_unless_the_user_says_how_many(
    tmp_path: Path, spec: InstallSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = dataclasses.replace(spec, jobs_variable="TINY_JOBS")
    assert printed(tmp_path, told, "TINY_JOBS") == f"{os.cpu_count()}"
    monkeypatch.setenv("TINY_JOBS", "77")
    assert printed(tmp_path, told, "TINY_JOBS") == "77"


def test_what_a_build_leaves_out_stands_before_what_the_user_asks_of_it(
    tmp_path: Path, spec: InstallSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of two words of one name is the one that CMake takes."""
    told = dataclasses.replace(spec, cmake_args="-DTESTS=OFF")
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    assert printed(tmp_path, told, "CMAKE_ARGS") == "-DTESTS=OFF"
    monkeypatch.setenv("CMAKE_ARGS", "-DCUDA=ON -DTESTS=ON")
    assert printed(tmp_path, told, "CMAKE_ARGS") == "-DTESTS=OFF -DCUDA=ON -DTESTS=ON"


def test_what_an_environment_needs_is_said_when_its_mending_fails(tmp_path: Path, spec: InstallSpec) -> None:
    mend = tmp_path / "mend_tiny.py"
    mend.write_text("raise SystemExit('ERROR: No matching distribution found for torch==2.13.0')\n")
    needing = dataclasses.replace(spec, mend=(mend,), needs="It needs torch 2.13.0.")
    with pytest.raises(MissingError, match=r"found for torch==2\.13\.0\nIt needs torch 2\.13\.0\."):
        install(tmp_path, needing, KeptLines())


def test_mending_has_the_scratch_of_the_install_and_a_limit_unless_the_user_asked(
    tmp_path: Path, spec: InstallSpec
) -> None:
    mend = tmp_path / "mend_tiny.py"
    mend.write_text(
        "import os, pathlib, sys, tempfile\n"
        "assert pathlib.Path(tempfile.gettempdir()) == pathlib.Path(sys.prefix, 'tmp')\n"
        "print('  of pip'); print('limit', os.environ.get('BENCH_INSTALL_LIMIT_BYTES'))\n"
    )
    mended = dataclasses.replace(spec, mend=(mend,))
    lines = KeptLines()
    made = install(tmp_path / "run", mended, lines, limit_bytes=7)
    assert (lines[-1], "  of pip" in lines) == ("limit 7", False)
    assert "  of pip\nlimit 7\n" in environment_dir(tmp_path / "run", mended, ".log").read_text()
    assert not (made.folder / "tmp").exists()
    install(tmp_path / "asked", mended, lines)
    assert lines[-1] == "limit None"


def test_mending_that_fails_is_not_installed(tmp_path: Path, spec: InstallSpec) -> None:
    mend = tmp_path / "mend_tiny.py"
    mend.write_text("raise SystemExit('nothing to mend here')\n")
    broken = dataclasses.replace(spec, mend=(mend,))
    with pytest.raises(MissingError, match=r"mended by mend_tiny\.py \(exit code 1\)[\s\S]*nothing to mend"):
        install(tmp_path, broken, KeptLines())
    assert installed(tmp_path, broken) is None


def test_program_of_the_spec_is_the_environments(tmp_path: Path, spec: InstallSpec) -> None:
    made = install(tmp_path, dataclasses.replace(spec, program="bin/python3"), KeptLines())
    assert made.program == made.folder / "bin" / "python3"
    assert made.python is not None


def test_program_that_the_lock_does_not_bring_is_said(tmp_path: Path, spec: InstallSpec) -> None:
    with pytest.raises(MissingError, match=r"tiny-cpu was installed without bin/server$"):
        install(tmp_path, dataclasses.replace(spec, program="bin/server"), KeptLines())


@pytest.mark.parametrize("with_uv", [True, False])
def test_what_is_missing_and_what_is_needed_are_said_when_packages_are_not_found(
    tmp_path: Path, spec: InstallSpec, monkeypatch: pytest.MonkeyPatch, with_uv: bool
) -> None:
    if not with_uv:
        monkeypatch.setattr(packages, "uv_program", lambda: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = tmp_path / "absent.txt"
    lock.write_text(f"tinything-absent==1.0 --hash=sha256:{'0' * 64}\n")
    absent = dataclasses.replace(spec, lock=lock, needs="It needs an index that has tinything.")
    with pytest.raises(MissingError) as caught:
        install(tmp_path, absent, KeptLines())
    head, *said, last = str(caught.value).splitlines()
    assert head.startswith(
        "tiny-cpu could not be installed (exit code 1); the end of its output; the whole output: "
    )
    assert "tinything-absent==1.0" in "".join(said)
    assert last == "It needs an index that has tinything."


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index that pip's settings name: a folder in which each package has one."""
    with fake_http(files_in(tmp_path)) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        yield tmp_path / "simple"


def test_a_package_for_another_python_is_said(tmp_path: Path, spec: InstallSpec, index: Path) -> None:
    page = index / "tinything-later" / "index.html"
    page.parent.mkdir(parents=True)
    wheel = make_wheel(page.parent, "tinything_later", {"tinything_later.py": ""})
    page.write_text(f'<a href="{wheel.name}" data-requires-python="&gt;=4.1">{wheel.name}</a>')
    lock = tmp_path / "later.txt"
    lock.write_text(f"tinything-later==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    with pytest.raises(MissingError, match=r"current Python version \(3\S* does not satisfy\s+Python>=4\.1"):
        install(tmp_path, dataclasses.replace(spec, lock=lock), KeptLines())


def test_pip_installs_where_there_is_no_uv(tmp_path, spec: InstallSpec, monkeypatch):
    monkeypatch.setattr(packages, "uv_program", lambda: None)
    assert install(tmp_path, spec, KeptLines()).versions["tinything"] == "1.0"


def test_the_lock_is_the_whole_of_it_and_dependencies_are_not_looked_for(tmp_path: Path, spec: InstallSpec):
    wheel = make_wheel(tmp_path, "tinyleaning", {"tinyleaning.py": ""}, requires="absent-thing==3")
    leaning = dataclasses.replace(
        spec, lock=make_lock(tmp_path, "tinyleaning", wheel), check="import tinyleaning"
    )
    assert install(tmp_path, leaning, KeptLines()).versions["tinyleaning"] == "1.0"


def test_what_an_earlier_install_left_is_removed_before_the_disk_is_checked(tmp_path, spec: InstallSpec):
    left = environment_dir(tmp_path, spec) / "lib" / "large"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    with pytest.raises(UserError, match="needs about"):
        install(tmp_path, dataclasses.replace(spec, size_bytes=10**18), KeptLines())
    assert not left.exists()


def test_another_lock_means_not_installed(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    assert made.spec.lock is not None
    other.write_text(made.spec.lock.read_text() + "# changed\n")
    assert installed(made.cache, made.spec) == made.environment
    assert installed(made.cache, dataclasses.replace(made.spec, lock=other)) is None


def test_second_install_waits_for_the_first(made: Made) -> None:
    lines = KeptLines()
    found: list[Environment] = []
    with (made.cache / "engines" / "tiny-cpu.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(
            target=lambda: found.append(install(made.cache, made.spec, lines)), daemon=True
        )
        second.start()
        wait_until(lambda: lines)
        assert "waiting" in lines[0]
        assert found == []
    second.join(timeout=10)
    assert found == [made.environment]


def test_nothing_is_installed_at_first(tmp_path: Path, spec: InstallSpec) -> None:
    assert installed(tmp_path, spec) is None


def test_failed_check_is_not_installed_and_is_made_good_later(tmp_path: Path, spec: InstallSpec) -> None:
    broken = dataclasses.replace(spec, check="raise SystemExit('no such instruction')")
    with pytest.raises(MissingError, match=r"does not work \(exit code 1\)[\s\S]*no such instruction"):
        install(tmp_path, broken, KeptLines())
    assert installed(tmp_path, spec) is None
    whole = install(tmp_path, spec, KeptLines())
    assert installed(tmp_path, spec) == whole
    # What uv's cache has as well is not freed.
    assert 0 < remove(tmp_path, spec) < whole.size_bytes + 10_000
    assert installed(tmp_path, spec) is None
    assert not environment_dir(tmp_path, spec).exists()


def test_wrong_hash_is_refused_in_a_line_that_says_what_would_work(tmp_path, spec: InstallSpec, wheel: Path):
    wrong = dataclasses.replace(spec, lock=make_lock(tmp_path, "tinything", wheel, digest="0" * 64))
    with pytest.raises(
        MissingError,
        match=r"^tiny-cpu could not be installed: the hash of a fetched file is not .*PIP_INDEX_URL.*$",
    ):
        install(tmp_path, wrong, KeptLines())
    assert installed(tmp_path, wrong) is None


@pytest.fixture
def built(tmp_path: Path, quick_venv: None) -> InstallSpec:
    """A package without a wheel, whose pyproject.toml wants a builder that no index has."""
    source = tmp_path / "tinysource-1.0"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["tinybuilder"]\nbuild-backend = "tinybuilder"\n'
        '[project]\nname = "tinysource"\nversion = "1.0"\n'
    )
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tinysource\nVersion: 1.0\n")
    package = tmp_path / "tinysource-1.0.tar.gz"
    with tarfile.open(package, "w:gz") as archive:
        archive.add(source, source.name)
    backend = (
        inspect.getsource(make_wheel)
        .replace("-> Path", "")
        .replace(": Path", "")
        .replace("Mapping[str, str]", "dict")
    )
    backend = (
        f"import zipfile\nfrom pathlib import Path\n{backend}\n"
        "def build_wheel(folder, settings=None, metadata=None):\n"
        "    return make_wheel(Path(folder), 'tinysource', {'tinysource.py': 'ANSWER = 43'}).name\n"
    )
    builder = make_wheel(tmp_path, "tinybuilder", {"tinybuilder.py": backend})
    return InstallSpec(
        "tiny-built",
        make_lock(tmp_path, "tinysource", package),
        "import tinysource; assert tinysource.ANSWER == 43",
        1_000,
        builders=make_lock(tmp_path, "tinybuilder", builder),
    )


@pytest.mark.parametrize("with_uv", [True, False])
def test_what_builds_a_package_is_of_the_lock_too_and_does_not_stay(
    tmp_path: Path, built: InstallSpec, monkeypatch: pytest.MonkeyPatch, with_uv: bool
) -> None:
    if not with_uv:
        monkeypatch.setattr(packages, "uv_program", lambda: None)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # an isolated build would look for the builder there
    made = install(tmp_path, built, KeptLines())
    assert made.versions["tinysource"] == "1.0"
    assert "tinybuilder" not in made.versions
    assert not list(made.folder.rglob("tinybuilder*"))


def test_a_builder_of_another_hash_is_refused_in_a_line(tmp_path: Path, built: InstallSpec) -> None:
    wheel = tmp_path / "tinybuilder-1.0-py3-none-any.whl"
    wrong = dataclasses.replace(built, builders=make_lock(tmp_path, "tinybuilder", wheel, digest="0" * 64))
    with pytest.raises(
        MissingError,
        match=r"^tiny-built: the tools that build its packages .*: the hash of a fetched file is not .*",
    ):
        install(tmp_path, wrong, KeptLines())
    assert installed(tmp_path, wrong) is None


@pytest.mark.parametrize("with_uv", [True, False])
def test_nothing_is_built_where_nothing_with_a_hash_would_build_it(
    tmp_path: Path, built: InstallSpec, monkeypatch: pytest.MonkeyPatch, with_uv: bool
) -> None:
    if not with_uv:
        monkeypatch.setattr(packages, "uv_program", lambda: None)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # the builder is there
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    digest = hashlib.sha256((tmp_path / "tinysource-1.0.tar.gz").read_bytes()).hexdigest()
    lock = tmp_path / "named.txt"
    lock.write_text(f"tinysource==1.0 --hash=sha256:{digest}\n")
    with pytest.raises(MissingError, match="tiny-built could not be installed"):
        install(tmp_path, dataclasses.replace(built, lock=lock, builders=None), KeptLines())
    made = install(tmp_path, dataclasses.replace(built, lock=lock), KeptLines())
    assert made.versions["tinysource"] == "1.0", "but for its builder's hash it can be built"


def test_interrupted_install_does_not_count(tmp_path: Path, spec: InstallSpec) -> None:
    class Interrupting:
        def line(self, text: str) -> None:
            if text.startswith("Resolved"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install(tmp_path, spec, Interrupting())
    assert environment_dir(tmp_path, spec).exists()
    assert installed(tmp_path, spec) is None


def test_marker_that_was_cut_short_does_not_count(made: Made, tmp_path: Path) -> None:
    folder = environment_dir(tmp_path, made.spec)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    whole = (environment_dir(made.cache, made.spec) / "installed.json").read_text()
    (folder / "installed.json").write_text(whole)
    assert installed(tmp_path, made.spec) is not None
    (folder / "installed.json").write_text(whole[: len(whole) // 2])
    assert installed(tmp_path, made.spec) is None


def test_too_small_disk_is_said_before_anything_is_made(tmp_path: Path, spec: InstallSpec) -> None:
    with pytest.raises(UserError, match=r"tiny-cpu needs about 1000000000\.0 GB under .*BENCH_CACHE_DIR"):
        install(tmp_path, dataclasses.replace(spec, size_bytes=10**18), KeptLines())
    assert not environment_dir(tmp_path, spec).exists()


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, ...]:
    try:
        compiler()
    except MissingError as error:
        pytest.skip(str(error))
    content = {
        "main.c": '#include "answer.h"\n#include <stdio.h>\n'
        'int main(void) { return !printf("%d", ANSWER + more()); }\n',
        "more.c": "int more(void) { return 2; }\n",
        "answer.h": "#define ANSWER 40\nint more(void);\n",
    }
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    return tuple(tmp_path / name for name in content)


def test_sources_become_a_program_that_is_made_anew_when_one_changes(tmp_path, sources: tuple[Path, ...]):
    spec = InstallSpec("tiny-native", None, "", 1_000, sources)
    lines = KeptLines()
    first = install(tmp_path, spec, lines)
    assert first.python is None
    assert first.program == tmp_path / "engines" / "tiny-native" / "bin" / "program"
    assert subprocess.check_output([first.program], text=True) == "42"
    assert first.versions["cc"]
    assert any(line.endswith(f"{sources[0]} {sources[1]}") for line in lines)
    assert installed(tmp_path, spec) == first
    sources[2].write_text("#define ANSWER 50\nint more(void);\n")
    assert installed(tmp_path, spec) is None
    again = install(tmp_path, spec, KeptLines())
    assert again.program is not None
    assert subprocess.check_output([again.program], text=True) == "52"
    assert remove(tmp_path, spec) > 1_000
    assert installed(tmp_path, spec) is None
    assert not first.folder.exists()


def test_sources_that_do_not_compile_are_refused_with_the_compilers_words(
    tmp_path: Path, sources: tuple[Path, ...]
) -> None:
    sources[1].write_text("int more(void) { return two; }\n")
    spec = InstallSpec("tiny-native", None, "", 1_000, sources)
    with pytest.raises(MissingError, match=r"program could not be built[\s\S]*two"):
        install(tmp_path, spec, KeptLines())
    assert installed(tmp_path, spec) is None


def test_without_a_compiler_one_line_says_what_would_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    with pytest.raises(
        MissingError, match=r"^no-such-compiler: no C compiler .*apt-get install gcc"
    ) as raised:
        install(tmp_path, InstallSpec("tiny-native", None, "", 1_000, (source,)), KeptLines())
    assert "\n" not in str(raised.value)


def test_what_the_engine_compiled_is_removed_with_its_environment(tmp_path: Path, spec: InstallSpec) -> None:
    compiled, others = compiled_dir(tmp_path, "tiny-cpu"), compiled_dir(tmp_path, "tiny-cuda")
    for folder in (compiled / "inductor", others, environment_dir(tmp_path, spec)):
        folder.mkdir(parents=True)
        (folder / "kernel").write_bytes(b"x" * 1000)
    assert remove(tmp_path, spec) == 2000
    assert others.is_dir()
    assert not compiled.exists()
    compiled.mkdir()
    (compiled / "kernel").write_bytes(b"x" * 10)
    assert remove(tmp_path, spec) == 10


def test_removing_what_is_not_there_frees_nothing(tmp_path: Path, spec: InstallSpec) -> None:
    assert remove(tmp_path, spec) == 0


def test_cache_dir_follows_the_environment_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("BENCH_CACHE_DIR")
    assert cache_dir().name == "serving-bench"
