"""Makes GGUF files of a few bytes, written by hand after ggml's docs/gguf.md."""

import struct


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def gguf(*entries: bytes, version: int = 3) -> bytes:
    """Return the bytes of a file with these metadata entries and no tensors."""
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + b"".join(entries)


def gguf_of_type(file_type: int) -> bytes:
    """Return the bytes of a file that names its quantization after arrays that a reader must skip."""
    words = struct.pack("<IQ", 8, 2) + text("<pad>") + text("é")
    scores = struct.pack("<IQ", 6, 3) + struct.pack("<3f", 0.5, 1.5, 2.5)
    return gguf(
        entry("general.architecture", 8, text("tiny")),
        entry("tokenizer.ggml.tokens", 9, words),
        entry("tokenizer.ggml.scores", 9, scores),
        entry("tokenizer.ggml.add_bos_token", 7, b"\x01"),
        entry("general.file_type", 4, struct.pack("<I", file_type)),
    )
