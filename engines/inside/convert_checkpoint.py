"""Makes a GGUF file of a checkpoint with llama.cpp's own converter.

Runs in the convert environment (`python -P`), which has the converter in share/llama.cpp. Arguments: the
checkpoint's directory, the output, the type of the tensors (f32, f16, bf16).

The converter loads some tokenizers with the code that lies beside them. Here transformers runs none. Where
the converter fails, the last line says why and the exit code is 3.
"""

import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any

CONVERTER = Path(sys.prefix, "share", "llama.cpp")
FAILED = 3
# For tqdm, which reads these when it is imported: now and then a line.
PROGRESS = {"TQDM_MININTERVAL": "10", "TQDM_BAR_FORMAT": "{desc} {n_fmt} of {total_fmt}B"}


class Lines:
    """A stderr that turns progress bars into lines: tqdm goes back to the start of one instead."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if line := text.strip():
            self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


class LastError(logging.Handler):
    """Keeps the last error that the converter logged, and passes its warnings on, shortened."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())
        if record.levelno >= logging.ERROR:
            self.text = text
        elif record.name == "hf-to-gguf" and text.strip("* "):
            print(f"warning: {text[:300]}", flush=True)


def one_line(text: str) -> str:
    return " ".join(text.split())


def run_no_foreign_code() -> None:
    """Let transformers load its own classes only, whatever the converter asks for."""
    from transformers import AutoConfig, AutoTokenizer

    for loader in (AutoConfig, AutoTokenizer):
        load = loader.from_pretrained.__func__  # type: ignore[attr-defined]

        def load_own(cls: Any, *given: Any, _load: Any = load, **options: Any) -> Any:
            return _load(cls, *given, **{**options, "trust_remote_code": False})

        loader.from_pretrained = classmethod(load_own)  # type: ignore[method-assign, assignment]


def why(error: BaseException, logged: str | None) -> str:
    """Return the reason in one line. The converter logs it, then exits with a number."""
    if isinstance(error, SystemExit):
        return logged or f"it ended with {error.code}"
    text = one_line(str(error))[:600]
    if "trust_remote_code" in text:
        return "it needs the code that comes with the checkpoint, which bench does not run"
    return f"{type(error).__name__}: {text}" if text else logged or type(error).__name__


def main() -> None:
    source, output, kind = sys.argv[1:]
    script = CONVERTER / "convert_hf_to_gguf.py"
    sys.path.insert(0, str(CONVERTER))
    sys.argv = [str(script), source, "--outfile", output, "--outtype", kind]
    os.environ.update(PROGRESS)
    sys.stderr = Lines(sys.stdout)
    last_error = LastError()
    # With a handler there already the converter's own logging.basicConfig adds none.
    logging.basicConfig(level=logging.WARNING, handlers=[last_error])
    print(f"reading {source}", flush=True)
    try:
        run_no_foreign_code()
        runpy.run_path(str(script), run_name="__main__")
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            return
        print(f"llama.cpp's converter says: {why(error, last_error.text)}", flush=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
