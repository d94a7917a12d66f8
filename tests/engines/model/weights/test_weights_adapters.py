"""LoRA adapters: random ones in both formats, the user's own, and those of another model."""

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import CONFIG, write_checkpoint
from gguf_bytes import entry, gguf, text

from serving_bench.engines.model import adapter_files
from serving_bench.engines.model.files import gguf_header
from serving_bench.engines.model.safetensors import safetensors_header
from serving_bench.engines.model.shape import facts_of
from serving_bench.engines.model.weights import adapted, misfit
from serving_bench.engines.model.weights.adapters import Base
from serving_bench.engines.model.weights.adapters import adapted as adapted_at
from serving_bench.harness.contracts import Adapter, Reason, Weights
from serving_bench.harness.errors import MissingError, UserError

# 4 layers, 8 heads of 8 numbers, 2 of keys and values, as CONFIG says.
GGUF_SHAPE = {
    "block_count": 4, "embedding_length": 64, "attention.head_count": 8, "attention.head_count_kv": 2,
    "context_length": 2048, "feed_forward_length": 96,
}  # fmt: skip
AS_GGUF = Weights("tiny", "fp16", "gguf")
RANDOM = Adapter("random-0")
PEFT = {"peft_type": "LORA", "base_model_name_or_path": "org/another", "r": 2, "lora_alpha": 4}
KEY = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"


def gguf_model(path: Path, architecture: str = "llama") -> Path:
    numbers = [entry(f"{architecture}.{key}", 4, struct.pack("<I", n)) for key, n in GGUF_SHAPE.items()]
    path.write_bytes(gguf(entry("general.architecture", 8, text(architecture)), *numbers))
    return path


def write_own(
    folder: Path, tensors: Mapping[str, tuple[Sequence[int], Sequence[float]]], **more: Any
) -> Path:
    """An adapter in PEFT's layout. `tensors`: name -> shape and numbers."""
    made = {
        name: adapter_files.Tensor(tuple(shape), "F32", array("f", numbers).tobytes())
        for name, (shape, numbers) in tensors.items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    adapter_files.write_peft(folder, made, {**PEFT, **more})
    return folder


def pair(projection: str, inputs: int, outputs: int, layer: int = 0) -> dict[str, Any]:
    a, b = KEY.format(layer, projection, "A"), KEY.format(layer, projection, "B")
    return {a: ((2, inputs), range(2 * inputs)), b: ((outputs, 2), range(2 * outputs))}


def misfit_text(source: Path, weights: Weights = AS_GGUF) -> str | None:
    reason = misfit(Adapter("own", str(source)), weights, facts_of(CONFIG))
    return str(reason) if isinstance(reason, Reason) else None


def test_a_random_adapter_has_rank_8_on_all_of_attention_in_both_formats(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model")
    of_checkpoint = adapted(RANDOM, Weights(str(model), "bf16", "safetensors"), tmp_path / "cache")
    of_gguf = adapted_at(RANDOM, AS_GGUF, gguf_model(tmp_path / "m.gguf"), tmp_path / "cache")
    sizes = {"q_proj": (64, 64), "k_proj": (64, 16), "v_proj": (64, 16), "o_proj": (64, 64)}
    header = safetensors_header(of_checkpoint.path / "adapter_model.safetensors")
    assert {name: tuple(each["shape"]) for name, each in header.items()} == {
        KEY.format(layer, projection, half): (8, inputs) if half == "A" else (outputs, 8)
        for layer in range(4)
        for projection, (inputs, outputs) in sizes.items()
        for half in "AB"
    }
    said = gguf_header(of_gguf.path)
    assert said.values == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
    }
    assert said.tensors["blk.3.attn_k.weight.lora_a"] == (64, 8)
    assert said.tensors["blk.3.attn_k.weight.lora_b"] == (8, 16)
    assert (of_gguf.rank, of_checkpoint.rank, len(said.tensors)) == (8, 8, len(header))
    config = json.loads((of_checkpoint.path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (8, 16, list(sizes))


def test_an_adapter_is_made_once_and_another_name_is_another_one(tmp_path: Path) -> None:
    base, cache = gguf_model(tmp_path / "m.gguf"), tmp_path / "cache"
    first = adapted_at(RANDOM, AS_GGUF, base, cache).path
    before = first.stat()
    assert adapted_at(RANDOM, AS_GGUF, base, cache).path.stat() == before
    other = adapted_at(Adapter("random-1"), AS_GGUF, base, cache).path
    assert (other.parent, other.stat().st_size) == (first.parent, before.st_size)
    assert other.read_bytes() != first.read_bytes()
    again = adapted_at(RANDOM, AS_GGUF, base, tmp_path / "elsewhere").path
    assert again.read_bytes() == first.read_bytes()


def test_what_a_kill_left_of_an_adapter_is_made_again(tmp_path: Path) -> None:
    base, cache = gguf_model(tmp_path / "m.gguf"), tmp_path / "cache"
    path = adapted_at(RANDOM, AS_GGUF, base, cache).path
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert adapted_at(RANDOM, AS_GGUF, base, cache).path.read_bytes() == whole
    assert not list(path.parent.glob("*.part"))


def test_own_adapters_are_served_where_they_are_or_turned_into_gguf(tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", pair("v_proj", 64, 16, layer=2), use_rslora=True)
    adapter, model = Adapter("own", str(own)), write_checkpoint(tmp_path / "model")
    found = adapted(adapter, Weights(str(model), "bf16", "safetensors"), tmp_path / "cache")
    assert (found.path, found.rank) == (own, 2)
    turned = adapted_at(adapter, AS_GGUF, gguf_model(tmp_path / "m.gguf"), tmp_path / "cache").path
    said = gguf_header(turned)
    assert said.tensors == {"blk.2.attn_v.weight.lora_a": (64, 2), "blk.2.attn_v.weight.lora_b": (2, 16)}
    # alpha over the root of the rank, where llama.cpp divides by the rank.
    assert said.values["adapter.lora.alpha"] == pytest.approx(4 * sqrt(2))
    assert turned.read_bytes().endswith(array("f", range(32)).tobytes())


def test_the_rows_of_a_llamas_queries_and_keys_are_interleaved(tmp_path: Path) -> None:
    """Two heads of four rows: of each head a row of its first half, then one of its second half."""
    name = KEY.format(0, "k_proj", "B")
    tensors = {name: adapter_files.Tensor((8, 1), "F32", array("f", range(8)).tobytes())}
    wanted = {"llama": [0, 2, 1, 3, 4, 6, 5, 7], "qwen2": list(range(8))}
    for architecture, rows in wanted.items():
        *_, data = adapter_files.gguf_parts(tensors, architecture, 16, {"q_proj": 4, "k_proj": 2})
        assert list(array("f", data)) == rows


def test_sizes_follow_from_the_heads() -> None:
    base = Base("gemma3", 1, 640, 256, {"q_proj": 4, "k_proj": 1})
    assert list(base.sizes) == [
        ("q_proj", 640, 1024), ("k_proj", 640, 256), ("v_proj", 640, 256), ("o_proj", 1024, 640)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (pair("q_proj", 64, 64), None),
        (pair("up_proj", 64, 999), None),  # the model's own size is not known before its weights are here
        (pair("k_proj", 64, 32), "its k_proj has 32 outputs, the model's 16"),
        (pair("q_proj", 4096, 64), "its q_proj has 4096 inputs, the model's 64"),
        (pair("o_proj", 64, 128), "its o_proj has 128 outputs, the model's 64"),
        (pair("q_proj", 64, 64, layer=31), "it has a layer 31, and the model has layers 0 to 3"),
    ],
)
def test_an_adapter_of_another_model_is_refused_naming_both(
    tmp_path: Path, tensors: dict[str, Any], said: str | None
) -> None:
    own = write_own(tmp_path / "own", tensors)
    whole = f"scenario.adapters={own}: is an adapter of org/another, not of tiny: {said}"
    assert misfit_text(own) == (said and whole)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type must be LORA"),
        ({"use_dora": True}, "peft_type must be LORA"),
        ({"r": 0}, "r and lora_alpha must be above 0"),
        ({"r": "8"}, "is not that of a LoRA adapter"),
        ({"use_rslora": True, "rank_pattern": {"q_proj": 4}}, "use_rslora and rank_pattern do not go"),
    ],
)
def test_what_is_no_lora_adapter_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    assert said in str(misfit_text(write_own(tmp_path / "own", pair("q_proj", 64, 64), **config)))


@pytest.mark.parametrize(
    ("projection", "inputs", "outputs", "said"),
    [
        ("q_proj", 64, 66, "its q_proj has 66 outputs, the model's 64"),
        ("o_proj", 32, 64, "its o_proj has 32 inputs, the model's 64"),
        ("up_proj", 64, 999, "its up_proj has 999 outputs, the model's 96"),
        ("down_proj", 999, 64, "its down_proj has 999 inputs, the model's 96"),
    ],
)
def test_sizes_that_the_weights_alone_tell_are_compared_once_they_are_here(
    tmp_path: Path, projection: str, inputs: int, outputs: int, said: str
) -> None:
    own = Adapter("own", str(write_own(tmp_path / "own", pair(projection, inputs, outputs))))
    model = write_checkpoint(tmp_path / "model", intermediate_size=96)
    as_gguf = gguf_model(tmp_path / "m.gguf")
    for weights, base in ((Weights("m", "bf16", "safetensors"), model), (AS_GGUF, as_gguf)):
        with pytest.raises(MissingError, match=f"is not an adapter of {weights.model}: {said}"):
            adapted_at(own, weights, base, tmp_path / "cache")


def test_halves_are_pairs_of_one_rank(tmp_path: Path) -> None:
    a, b = pair("q_proj", 64, 64).items()
    other = (b[0], ((64, 3), range(192)))
    for name, tensors in {"a": [a], "b": [b], "ranks": [a, other]}.items():
        own = write_own(tmp_path / name, dict(tensors))
        said = str(misfit_text(own))
        assert f"{adapter_files.TENSORS_FILE} has no lora_A and lora_B of the same rank for " in said
        assert said.endswith("self_attn.q_proj")


@pytest.mark.parametrize(
    "tensor",
    [{"dtype": "F32"}, {"dtype": "F32", "shape": 4}, {"dtype": "F32", "shape": "44"}, {"shape": [1]}],
)
def test_a_header_without_shapes_is_refused(tmp_path: Path, tensor: dict[str, Any]) -> None:
    own = write_own(tmp_path / "own", pair("q_proj", 64, 64))
    header = json.dumps({KEY.format(0, "q_proj", "A"): {"data_offsets": [0, 0], **tensor}}).encode()
    (own / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "adapter_model.safetensors: not a safetensors file" in str(misfit_text(own))


def test_a_directory_in_the_place_of_the_tensors_is_refused(tmp_path: Path) -> None:
    own = write_own(tmp_path / "own", pair("q_proj", 64, 64))
    (own / "adapter_model.safetensors").unlink()
    (own / "adapter_model.safetensors").mkdir()
    assert "adapter_model.safetensors: not a regular file" in str(misfit_text(own))


def test_rows_are_never_dropped() -> None:
    tensors = {KEY.format(0, "k_proj", "B"): adapter_files.Tensor((7, 1), "F32", bytes(28))}
    with pytest.raises(UserError, match="7 rows are not those of 2 heads"):
        list(adapter_files.gguf_parts(tensors, "llama", 16, {"q_proj": 4, "k_proj": 2}))


def test_a_directory_without_an_adapter_is_refused(tmp_path: Path) -> None:
    begins = f"scenario.adapters={tmp_path}: no directory with adapter_config.json and adapter_model"
    assert str(misfit_text(tmp_path)).startswith(begins)
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT))
    assert str(misfit_text(tmp_path)).startswith(begins)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no header")
    assert "not a safetensors file" in str(misfit_text(tmp_path))
    (tmp_path / "adapter_config.json").write_text("[]")
    assert "is not that of a LoRA adapter" in str(misfit_text(tmp_path))


def test_layers_that_gguf_has_no_name_for_are_refused_there_alone(tmp_path: Path) -> None:
    other = "base_model.model.lm_head.lora_A.weight"
    head = {other: ((2, 64), range(128)), other.replace("_A", "_B"): ((99, 2), range(198))}
    own = write_own(tmp_path / "own", {**head, **pair("q_proj", 64, 64)})
    assert f"has {other}; bench converts only q_proj" in str(misfit_text(own))
    assert misfit_text(own, Weights("tiny", "fp16", "safetensors")) is None


def test_an_architecture_whose_rows_are_in_an_unknown_order_gets_random_adapters_alone(tmp_path: Path):
    base, cache = gguf_model(tmp_path / "m.gguf", "unheard"), tmp_path / "cache"
    own = Adapter("own", str(write_own(tmp_path / "own", pair("q_proj", 64, 64))))
    assert adapted_at(RANDOM, AS_GGUF, base, cache).path.is_file()
    with pytest.raises(MissingError, match=r"writes adapters as GGUF for gemma, .*, not for unheard"):
        adapted_at(own, AS_GGUF, base, cache)
