"""The beginning of scripts that compare tensors, run by a Python that has numpy; the tests' own need not."""

# `load(path, name)` returns a tensor of a safetensors file, with bfloat16 as float32.
LOAD = """
import json, struct, sys
import numpy as np
TYPES = {"BF16": np.uint16, "F16": np.float16, "I32": np.int32}
def load(path, name):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        about = json.loads(file.read(length))[name]
        start, end = about["data_offsets"]
        file.seek(8 + length + start)
        values = np.frombuffer(file.read(end - start), dtype=TYPES[about["dtype"]]).reshape(about["shape"])
    return (values.astype(np.uint32) << 16).view(np.float32) if about["dtype"] == "BF16" else values
"""
