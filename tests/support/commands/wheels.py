"""Makes small wheels, so that pip installs something real without a network."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

# Takes the place of setuptools, which would be fetched: writes an editable wheel of the project's folder.
_BACKEND = """\
import pathlib, tomllib, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    module = project["name"].replace("-", "_")
    name, about = f"{module}-1.0-py3-none-any.whl", f"{module}-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {each}\\n" for each in project["dependencies"])
    files = {
        f"{module}.pth": str(pathlib.Path.cwd()),
        f"{about}/METADATA": f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: 1.0\\n{needs}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\\n" for path in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""
_PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "{name}"
version = "1.0"
dependencies = {requires}
"""


def make_project(folder: Path, name: str, *requires: str) -> None:
    """Make the folder a project that can be installed as editable. Its only module is `backend`."""
    (folder / "pyproject.toml").write_text(_PROJECT.format(name=name, requires=list(requires)))
    (folder / "backend.py").write_text(_BACKEND)


def make_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    requires: str | None = None,
    requires_python: str | None = None,
) -> Path:
    """Write a pure wheel of version 1.0 with these files (path -> text), and return its path."""
    about = f"{name}-1.0.dist-info"
    more = f"Requires-Dist: {requires}\n" if requires else ""
    more += f"Requires-Python: {requires_python}\n" if requires_python else ""
    contents = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*contents, f"{about}/RECORD"])
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**contents, f"{about}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def make_lock(folder: Path, name: str, wheel: Path, digest: str | None = None) -> Path:
    """Write a requirements file that pins the wheel by its hash, or by the given one. Return its path."""
    lock = folder / f"{name}.txt"
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"{name} @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return lock
