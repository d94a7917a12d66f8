"""A real Docker Engine for tests: the one that answers, or one that is started here and stopped again.

Where no image registry can be reached, the base image is made here: Debian by debootstrap, with the Python
that runs the tests in /usr/local, as in python:3.11-slim-trixie. Images stay in ROOT, so later tests are
quick.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from places import ROOT as CHECKOUT
from waiting import wait_until

ROOT = Path(os.environ.get("BENCH_TEST_DOCKER_ROOT", Path(tempfile.gettempdir(), "serving-bench-docker")))
BASE = "serving-bench/test-base:trixie"
# The libraries that Python's own modules link to, and certificates.
PACKAGES = "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8t64,libsqlite3-0,"
PACKAGES += "libssl3t64,libuuid1,zlib1g"
PIP_SETTINGS = ("cert", "default-timeout", "extra-index-url", "index-url", "proxy", "trusted-host")
LEFT_OUT = ("test", "site-packages", "__pycache__", "idlelib", "tkinter", "turtledemo", "config-*")
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class DockerEngine:
    """A running Docker Engine. `host` is as in DOCKER_HOST.

    `base`: an image to build on instead of the Dockerfiles' own. `pid`: of dockerd, if it was started here.
    """

    host: str
    base: str | None = None
    pid: int | None = None

    def docker(self, *arguments: object, check: bool = True) -> str:
        """Run `docker ARGUMENTS` and return what it prints."""
        done = subprocess.run(
            ["docker", *map(str, arguments)], env={**os.environ, "DOCKER_HOST": self.host},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"docker {arguments}: {done.stderr[-3000:]}"
        return done.stdout.strip()

    def build(self, dockerfile: str, tag: str, *arguments: object) -> None:
        """Build one of the project's images. Docker's cache makes it quick if nothing changed."""
        base = ["--build-arg", f"BASE={self.base}"] if self.base else []
        # On the host's network: an engine that is started here has no bridge of its own.
        network = ["--network", "host"] if self.base else []
        path = CHECKOUT / "docker" / dockerfile
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
            settings.write(pip_settings())
            settings.flush()
            secret = f"--secret=id=pip,src={settings.name}"
            self.docker("build", *network, *base, secret, *arguments, "--file", path, "--tag", tag, CHECKOUT)

    def has(self, image: str) -> bool:
        return bool(self.docker("image", "ls", "--quiet", image))

    def containers(self) -> list[str]:
        """Return the names of all containers that bench started, running or not."""
        return self.docker("ps", "--all", "--filter", "label=serving-bench", "--format", "{{.Names}}").split()


@contextmanager
def docker_engine() -> Iterator[DockerEngine | str]:
    """Yield an engine, or a sentence on why there can be none here."""
    if shutil.which("docker") is None:
        yield "no docker program here (on Debian: apt-get install docker.io docker-cli docker-buildx)"
        return
    asked = subprocess.run(
        ["docker", "version", "--format", "ok"], capture_output=True, text=True, check=False
    )
    if asked.returncode == 0:
        found = DockerEngine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
        yield replace(found, base=BASE) if found.has(BASE) else found
    elif os.geteuid() != 0 or shutil.which("dockerd") is None:
        yield f"no Docker Engine answers, and none can be started here: {asked.stderr.strip()[:200]}"
    else:
        with started_engine(ROOT) as engine:
            yield engine


@contextmanager
def started_engine(root: Path, base: str | None = None, image: Path | None = None) -> Iterator[DockerEngine]:
    """Start a dockerd of our own, without bridge or firewall rules: everything uses the host's network.

    `base` is made unless it is given; `image` is then the file of `docker save` that contains it.
    """
    for name in ("data", "exec"):
        (root / name).mkdir(parents=True, exist_ok=True)
    host = f"unix://{root}/docker.sock"
    # fmt: off
    argv = ["dockerd", "--data-root", root / "data", "--exec-root", root / "exec", "--host", host,
            "--pidfile", root / "docker.pid", "--iptables=false", "--ip6tables=false", "--bridge=none"]
    # fmt: on
    with (root / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    engine = DockerEngine(host, None, process.pid)
    try:

        def answers() -> bool:
            assert process.poll() is None, (root / "dockerd.log").read_text()[-2000:]
            return bool(engine.docker("version", "--format", "{{.Server.Version}}", check=False))

        wait_until(answers, 60)
        if image:
            engine.docker("load", "--input", image)
        yield DockerEngine(host, base or base_image(engine, root), process.pid)
    finally:
        process.terminate()
        process.wait(60)
        # Its directory cannot be removed while anything in it is mounted.
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for path in sorted((path for path in mounted if path.startswith(f"{root}/")), reverse=True):
            subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)


def base_image(engine: DockerEngine, root: Path) -> str | None:
    """Return the base image, which is made once and kept.

    None where debootstrap is missing: then images are built on the Dockerfiles' own base, from its registry.
    """
    if engine.has(BASE):
        return BASE
    if shutil.which("debootstrap") is None:
        return None
    folder = root / "base"
    shutil.rmtree(folder, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "trixie", folder)
    if Path("/", CERTIFICATES).exists():
        shutil.copy(Path("/", CERTIFICATES), folder / CERTIFICATES)
    _copy_python(folder / "usr" / "local")
    _run("chroot", folder, "ldconfig")
    _run("chroot", folder, "/usr/local/bin/python3", "-m", "ensurepip")
    tar = root / "base.tar"
    _run("tar", "--directory", folder, "--create", "--file", tar, ".")
    engine.docker("import", "--change", 'CMD ["python3"]', tar, BASE)
    tar.unlink()
    shutil.rmtree(folder)
    return BASE


def pip_settings() -> str:
    """This machine's own settings of where pip downloads from, as a pip.conf: a build has to do so, too."""
    found = {key: value for key, value in _pip_config().items() if key in PIP_SETTINGS}
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in found.items())


def wheels(folder: Path | str | None) -> list[str]:
    """Arguments of `build`: wheels in a directory of this machine, for a build to find."""
    return ["--build-context", f"wheels={folder}"] if folder else []


def wheel_folder() -> Path | None:
    """Return a directory of wheels that this machine's pip looks into, if there is one."""
    folder = Path(_pip_config().get("find-links", ""))
    return folder if folder.is_absolute() and folder.is_dir() else None


def not_found(lock: Path, *packages: str) -> str | None:
    """Return what pip says if it finds no wheel of a package as the lock pins it. None if it finds all."""
    wanted = [line.split()[0] for line in lock.read_text().splitlines() if line.split("==")[0] in packages]
    assert len(wanted) == len(packages), f"{lock.name} does not pin all of {packages}"
    argv = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
    said = subprocess.run([*argv, *wanted], capture_output=True, text=True, check=False).stderr
    missing = [line for line in said.splitlines() if "No matching distribution found" in line]
    return missing[0].removeprefix("ERROR: ") if missing else None


def _pip_config() -> dict[str, str]:
    argv = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key.rpartition(".")[2]: value.strip("'") for key, _, value in pairs}


def _copy_python(prefix: Path) -> None:
    """Copy the standard library, the program, its shared library and headers; no packages."""
    source = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(
        source / "lib" / name, prefix / "lib" / name, symlinks=True, dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(*LEFT_OUT),
    )  # fmt: skip
    (prefix / "lib" / name / "site-packages").mkdir()
    shutil.copytree(source / "include" / name, prefix / "include" / name, dirs_exist_ok=True)
    for library in (source / "lib").glob("libpython*"):
        shutil.copy(library, prefix / "lib", follow_symlinks=False)
    shutil.copy(source / "bin" / name, prefix / "bin" / name)
    (prefix / "bin" / "python3").symlink_to(name)


def _run(*argv: object) -> None:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout[-1000:]} {done.stderr[-1000:]}"
