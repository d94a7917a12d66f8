"""Convert the tensors of a GGUF file to another type, in the llama_cpp environment (`python -P`).

Arguments: input, output, kind (f16, bf16, q8_0, q4_0). As in llama.cpp's tools, 1-d tensors stay F32.
"""

import sys
from math import prod
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.gguf_reader import ReaderTensor
from gguf.quants import dequantize, quantize

KINDS = {
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
FILE_TYPE = "general.file_type"
# GGUFWriter writes the architecture itself; GGUF.* are fields that the reader adds.
NOT_COPIED = ("GGUF.", "general.architecture", FILE_TYPE)
ROWS_AT_ONCE = 8192  # bounds the memory: an F32 copy of a big vocabulary's matrix is 671 MB


class PlainReader(GGUFReader):
    """A reader on a plain array: slicing a numpy.memmap a million times takes half of the run."""

    def _get(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.data, np.memmap):
            self.data = np.asarray(self.data)
        return super()._get(*args, **kwargs)


def target_type(tensor: ReaderTensor, wanted: GGMLQuantizationType, output: str) -> GGMLQuantizationType:
    if len(tensor.shape) < 2:
        return GGMLQuantizationType.F32
    if tensor.name == output and wanted is GGMLQuantizationType.Q4_0:
        # llama-quantize makes Q6_K here, or Q8_0 if 256 does not divide the rows. The gguf package cannot
        # make Q6_K.
        wanted = GGMLQuantizationType.Q8_0
    block, _ = GGML_QUANT_SIZES[wanted]
    return wanted if tensor.shape[0] % block == 0 else GGMLQuantizationType.F16


def converted(tensor: ReaderTensor, target: GGMLQuantizationType) -> np.ndarray:
    """Return the tensor's data in the target type. Converts a few thousand rows at a time."""
    if tensor.tensor_type is target:
        return tensor.data
    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    parts = [
        quantize(dequantize(rows[start : start + ROWS_AT_ONCE], tensor.tensor_type), target)
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts)


def main() -> None:
    source, output, kind = sys.argv[1:]
    wanted, file_type = KINDS[kind]
    reader = PlainReader(source)
    writer = GGUFWriter(output, arch=reader.fields["general.architecture"].contents())
    writer.add_uint32(FILE_TYPE, int(file_type))
    for field in reader.fields.values():
        if not field.name.startswith(NOT_COPIED):
            kind_of_field, *_ = field.types
            of = field.types[-1] if kind_of_field is GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind_of_field, sub_type=of)
    names = {tensor.name for tensor in reader.tensors}
    # The matrix that gives the logits: the embedding, if the two are tied.
    last = "output.weight" if "output.weight" in names else "token_embd.weight"
    targets = [target_type(tensor, wanted, last) for tensor in reader.tensors]
    for tensor, target in zip(reader.tensors, targets, strict=True):
        shape = [int(n) for n in reversed(tensor.shape)]
        block, size = GGML_QUANT_SIZES[target]
        data_bytes = prod(shape) // block * size
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), data_bytes, raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (tensor, target) in enumerate(zip(reader.tensors, targets, strict=True), 1):
        writer.write_tensor_data(converted(tensor, target))
        if number % 60 == 0 or number == len(targets):
            print(f"{kind}: {number} of {len(targets)} tensors", flush=True)
    writer.close()


if __name__ == "__main__":
    main()
