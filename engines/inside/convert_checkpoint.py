"""Convert a checkpoint to GGUF with llama.cpp's converter, in the convert environment (`python -P`).

Arguments: the checkpoint's directory, the output, the type of the tensors (f32, f16, bf16).
"""

import logging
import runpy
import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

CONVERTER = Path(sys.prefix, "share", "llama.cpp")


def run_no_foreign_code() -> None:
    """Make transformers load only its own classes, whatever the converter asks for."""
    for loader in (AutoConfig, AutoTokenizer):
        load = loader.from_pretrained.__func__  # type: ignore[attr-defined]

        def load_own(cls: Any, *given: Any, _load: Any = load, **options: Any) -> Any:
            return _load(cls, *given, **{**options, "trust_remote_code": False})

        loader.from_pretrained = classmethod(load_own)  # type: ignore[method-assign, assignment]


def main() -> None:
    source, output, kind = sys.argv[1:]
    script = CONVERTER / "convert_hf_to_gguf.py"
    sys.path.insert(0, str(CONVERTER))
    sys.argv = [str(script), source, "--outfile", output, "--outtype", kind]
    # After this the converter's logging.basicConfig, which would log every tensor, does nothing.
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
    print(f"reading {source}", flush=True)
    run_no_foreign_code()
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        reason = " ".join(str(error).split())[:600]
        if "trust_remote_code" in reason:
            reason = "it needs the code that comes with the checkpoint, which bench does not run"
        sys.exit(f"{type(error).__name__}: {reason}")


if __name__ == "__main__":
    main()
