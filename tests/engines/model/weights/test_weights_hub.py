"""Downloads with the real huggingface_hub against a server on this machine that speaks its API."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_command import begun, bench, made, told
from checkpoint_files import CONFIG, safetensors
from gguf_bytes import gguf_of_type
from held_ports import held_port
from hub_server import COMMIT, Hub, serving
from waiting import is_running, wait_until
from weights_steps import no_tool, prepared

from serving_bench.engines.model.models import MODELS
from serving_bench.engines.model.weights import calls_hub, can_prepare, choosing, find, missing_bytes
from serving_bench.harness.contracts import InstallSpec, Weights
from serving_bench.harness.errors import MissingError, UserError

BIG = safetensors({"model.embed_tokens.weight": (1000, 400), "model.norm.weight": (64,)})
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": BIG,
    "consolidated.safetensors": BIG,
    "pytorch_model.bin": b"a pickle",
    "modeling_tiny.py": b"print('code')",
    "original/model.safetensors": BIG,
    "README.md": b"about",
}
MODEL = "hf:org/tiny"
CHECKPOINT = Weights(MODEL, "bf16", "safetensors")


class StoppedError(Exception):
    pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving(Hub("org/tiny", FILES)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


def test_checkpoint_is_fetched_without_pickles_and_code(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lines: list[str] = []
    assert can_prepare(CHECKPOINT) is None
    assert find(CHECKPOINT, cache) is None
    assert calls_hub(CHECKPOINT, cache)
    assert missing_bytes(CHECKPOINT, cache) is None
    assert not hub.seen  # so far nobody called the hub

    made = prepared(CHECKPOINT, cache, no_tool, lines.append)
    assert made.path == cache / "weights/hub/org--tiny@main/tiny"
    assert sorted(path.name for path in made.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (made.path / "model.safetensors").read_bytes() == BIG
    assert made.facts is not None
    assert (made.facts.layers, made.facts.parameters) == (4, 400_064)
    assert f"org/tiny at {COMMIT[:12]}: 3 files, 1 MB" in lines
    assert not [line for line in lines if line.startswith("{")]

    seen = len(hub.seen)
    assert find(CHECKPOINT, cache) == made
    assert prepared(CHECKPOINT, cache) == made
    assert missing_bytes(CHECKPOINT, cache) == 0
    assert not calls_hub(CHECKPOINT, cache)
    assert len(hub.seen) == seen


def test_manifest_names_the_commit_and_each_file_with_its_hash(hub: Hub, tmp_path: Path) -> None:
    made = prepared(CHECKPOINT, tmp_path)
    manifest = json.loads(made.path.with_name("tiny.json").read_text())
    assert (manifest["repo"], manifest["revision"], manifest["commit"]) == ("org/tiny", "main", COMMIT)
    assert manifest["quantization"] == "bf16"
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert all(len(each["sha256"]) == 64 for each in manifest["files"].values())


def test_fp16_is_the_same_checkpoint_and_says_that_it_is_cast(hub: Hub, tmp_path: Path) -> None:
    prepared(CHECKPOINT, tmp_path)
    cast = find(Weights(MODEL, "fp16", "safetensors"), tmp_path)
    assert cast is not None
    assert [str(note) for note in cast.notes] == ["stored as bf16, cast to fp16 on load"]


def test_repository_of_another_quantization_says_what_it_is(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="hf:org/tiny is bf16, not gptq"):
        prepared(Weights(MODEL, "gptq", "safetensors"), tmp_path)


def test_interrupted_download_is_not_finished_and_goes_on_with_the_next_file(hub: Hub, tmp_path: Path):
    hub.is_stalled = True

    def stop_at_progress(line: str) -> None:
        if " of " in line:
            raise StoppedError

    with pytest.raises(StoppedError):
        prepared(CHECKPOINT, tmp_path, no_tool, stop_at_progress)
    folder = tmp_path / "weights/hub/org--tiny@main"
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "tiny.part"]
    assert find(CHECKPOINT, tmp_path) is None

    hub.is_stalled = False
    hub.released.set()
    hub.seen.clear()
    made = prepared(CHECKPOINT, tmp_path)
    assert (made.path / "model.safetensors").read_bytes() == BIG
    assert find(CHECKPOINT, tmp_path) == made
    assert not list(made.path.rglob("*.incomplete"))
    fetched = [path.rpartition("/")[2] for method, path, _ in hub.seen if "/resolve/" in path]
    # The tokenizer was here already; the hub is asked for config.json each time.
    assert set(fetched) == {"config.json", "model.safetensors"}


def test_file_that_the_repository_has_no_more_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / "weights/hub/org--tiny@main/tiny.part"
    part.mkdir(parents=True)
    (part / "model-00002-of-00002.safetensors").write_bytes(b"of a download that was cut short")
    made = prepared(CHECKPOINT, tmp_path)
    assert sorted(path.name for path in made.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_file_that_is_not_what_the_hub_says_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.lies_about = "model.safetensors"
    with pytest.raises(MissingError, match=r"model\.safetensors has sha256 [0-9a-f]{64}, but should have"):
        prepared(CHECKPOINT, tmp_path)
    assert find(CHECKPOINT, tmp_path) is None


def test_pickles_alone_are_refused_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": FILES["config.json"], "pytorch_model.bin": b"a pickle"}
    with pytest.raises(MissingError, match="no safetensors but pickles, which can run code"):
        prepared(CHECKPOINT, tmp_path)
    assert {path.rpartition("/")[2] for _, path, _ in hub.seen if "/resolve/" in path} == {"config.json"}


def test_gguf_file_is_chosen_by_its_kind(hub: Hub, tmp_path: Path) -> None:
    hub.files = {
        "tiny-Q8_0.gguf": gguf_of_type(7),
        "tiny-Q4_K_M.gguf": gguf_of_type(15),
        "mmproj-tiny-Q8_0.gguf": b"eyes",
    }
    made = prepared(Weights(MODEL, "gguf-q8_0", "gguf"), tmp_path)
    assert made.path == tmp_path / "weights/hub/org--tiny@main/q8_0/tiny-Q8_0.gguf"
    assert find(Weights(MODEL, "gguf-q4_k_m", "gguf"), tmp_path) is None
    with pytest.raises(MissingError, match=r"no q5_k_m file; there are: tiny-Q8_0\.gguf, tiny-Q4_K_M\.gguf"):
        prepared(Weights(MODEL, "gguf-q5_k_m", "gguf"), tmp_path)


def test_gguf_in_parts_is_fetched_whole_and_named_by_its_first(hub: Hub, tmp_path: Path) -> None:
    hub.files = {
        "tiny-q4_k_m-00001-of-00002.gguf": gguf_of_type(15),
        "tiny-q4_k_m-00002-of-00002.gguf": b"GGUF and the rest",
    }
    made = prepared(Weights(MODEL, "gguf-q4_k_m", "gguf"), tmp_path)
    assert made.path.name == "tiny-q4_k_m-00001-of-00002.gguf"
    manifest = json.loads(made.path.parent.with_name("q4_k_m.json").read_text())
    assert (manifest["quantization"], manifest["bits_per_weight"]) == ("gguf-q4_k_m", None)
    assert made.path.with_name("tiny-q4_k_m-00002-of-00002.gguf").is_file()
    assert made.size_bytes == sum(map(len, hub.files.values()))


def test_file_that_lies_about_its_kind_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"tiny-Q8_0.gguf": gguf_of_type(15)}
    weights = Weights(MODEL, "gguf-q8_0", "gguf")
    with pytest.raises(MissingError, match="says that it is gguf-q4_k_m, not gguf-q8_0"):
        prepared(weights, tmp_path)
    assert find(weights, tmp_path) is None


def test_a_hub_that_cannot_be_reached_is_one_plain_line_for_all_that_was_asked(tmp_path: Path) -> None:
    words = ("prepare", f"model={MODEL}", "quantization=bf16,gguf-q8_0", "--quiet")
    with held_port() as port:
        nowhere = f"http://127.0.0.1:{port}"
        done = bench(made(tmp_path / "here"), *words, HF_ENDPOINT=nowhere)
    assert (done.returncode, done.stdout) == (2, "")
    kinds = ("bf16 as gguf", "bf16 as safetensors", "gguf-q8_0 as gguf")
    assert done.stderr == (
        f"{', '.join(f'{MODEL} {kind}' for kind in kinds)}: org/tiny could not be downloaded: {nowhere} "
        "cannot be reached from here, or stopped answering (ConnectError); connect this machine or set "
        "HF_ENDPOINT to a mirror, then run the same command again; or give a copy on this machine: "
        "model=/path\n"
    )


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "GatedRepo", "it is gated: accept its terms"),
        (404, "RepoNotFound", "no such repository, or a private one that needs HF_TOKEN"),
        (404, "RevisionNotFound", "it has no revision main"),
        (418, "", "answered 418"),
    ],
)
def test_refusal_of_the_hub_is_one_sentence(hub: Hub, tmp_path: Path, status: int, code: str, said: str):
    hub.status, hub.error_code = status, code
    lines: list[str] = []
    with pytest.raises(MissingError, match=said) as caught:
        prepared(CHECKPOINT, tmp_path, no_tool, lines.append)
    assert str(caught.value).startswith("org/tiny could not be downloaded: ")
    assert str(caught.value).endswith("; or give a copy on this machine: model=/path")
    assert lines == []  # it is the error alone that says so
    assert "\n" not in str(caught.value)
    assert can_prepare(CHECKPOINT, tmp_path) is None  # another day it may answer


def test_hub_that_is_not_there_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingError, match=r"http://127\.0\.0\.1:9") as caught:
        prepared(CHECKPOINT, tmp_path)
    assert "Traceback" not in str(caught.value)


def test_offline_never_calls_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE forbids"):
        prepared(CHECKPOINT, tmp_path)
    assert not hub.seen


def test_token_comes_from_the_environment_alone(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("hf_of_a_login")
    prepared(CHECKPOINT, tmp_path / "one")
    assert set(hub.tokens) == {None}
    hub.status = 401  # it refuses what it is asked first, which bears the token already
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_older")
    refused(CHECKPOINT, tmp_path / "older")
    assert hub.tokens[-1] == "Bearer hf_older"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    refused(CHECKPOINT, tmp_path / "two")
    assert hub.tokens[-1] == "Bearer hf_mine"


def test_row_of_the_table_is_fetched_by_its_repository(hub: Hub, tmp_path, monkeypatch):
    hub.repo = "Qwen/Qwen2.5-0.5B-Instruct"
    weights = Weights("qwen2.5-0.5b-instruct", "fp16", "safetensors")
    assert missing_bytes(weights, tmp_path) == 494_032_768 * 2
    lines: list[str] = []
    made = prepared(weights, tmp_path, no_tool, lines.append)
    assert made.path == tmp_path / "weights/qwen2.5-0.5b-instruct/Qwen2.5-0.5B-Instruct"
    assert made.facts is not None
    assert made.facts.architecture == "qwen2"  # the row's
    assert lines[0].endswith("its use is under the Apache License 2.0")


def test_awq_of_a_repository_that_is_not_quantized_asks_for_autoawq(hub: Hub, tmp_path: Path) -> None:
    asked: list[str] = []

    def only_asked(spec: InstallSpec) -> Path:
        asked.append(spec.environment)
        raise MissingError(f"run `bench install {spec.environment}`")

    with pytest.raises(MissingError, match="bench install autoawq"):
        prepared(Weights(MODEL, "awq", "safetensors"), tmp_path, only_asked)
    assert find(CHECKPOINT, tmp_path) is not None
    assert asked[0].startswith("autoawq-")


@pytest.mark.parametrize("model", ["hf:tiny", "hf:../x/y", "hf:a/b/c", "hf:a/b@../x", "hf:"])
def test_what_names_no_repository_is_refused(model: str) -> None:
    reason = can_prepare(Weights(model, "bf16", "safetensors"))
    assert reason is not None
    assert "hf:organisation/name" in str(reason)


# --- what a repository lacks


GGUF = Weights(MODEL, "gguf-q8_0", "gguf")


def refused(weights: Weights, cache: Path) -> str:
    with pytest.raises(MissingError) as caught:
        prepared(weights, cache)
    return str(caught.value)


def test_what_a_repository_lacks_is_one_line_and_known_from_then_on(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"README.md": b"about"}
    said = refused(GGUF, tmp_path)
    assert said == "org/tiny has no q8_0 file; there are: no GGUF files"
    folder = tmp_path / "weights/hub/org--tiny@main"
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]
    reason = can_prepare(GGUF, tmp_path)
    assert reason is not None
    assert str(reason).startswith(said)
    assert "`bench prepare` asks again" in str(reason)
    assert can_prepare(GGUF, tmp_path / "another cache") is None
    assert can_prepare(Weights(f"{MODEL}@v2", "gguf-q8_0", "gguf"), tmp_path) is None


def test_what_a_repository_has_by_now_is_fetched_and_the_lack_forgotten(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"README.md": b"about"}
    refused(GGUF, tmp_path)
    hub.files = {"tiny-Q8_0.gguf": gguf_of_type(7)}
    made = prepared(GGUF, tmp_path)
    assert can_prepare(GGUF, tmp_path) is None
    made.path.unlink()
    assert can_prepare(GGUF, tmp_path) is None


def test_what_is_here_stays_found_when_the_repository_has_it_no_more(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"tiny-Q8_0.gguf": gguf_of_type(7)}
    made = prepared(GGUF, tmp_path)
    hub.files = {"README.md": b"about"}
    refused(Weights(MODEL, "gguf-q4_0", "gguf"), tmp_path)
    assert find(GGUF, tmp_path) == made
    assert can_prepare(GGUF, tmp_path) is None


def test_checkpoint_of_another_quantization_is_known_from_then_on(hub: Hub, tmp_path: Path) -> None:
    gptq = Weights(MODEL, "gptq", "safetensors")
    assert can_prepare(gptq, tmp_path) is None
    said = refused(gptq, tmp_path)
    reason = can_prepare(gptq, tmp_path)
    assert reason is not None
    assert said == "model=hf:org/tiny is bf16, not gptq"
    assert str(reason).startswith(said)
    assert can_prepare(CHECKPOINT, tmp_path) is None
    assert can_prepare(Weights(MODEL, "awq", "safetensors"), tmp_path) is None  # made from it


# --- disk


def test_a_download_needs_its_size_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path).free
    row = MODELS["qwen2.5-0.5b-instruct"]
    weights = Weights(row.name, "bf16", "safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for share, error, said in [(0.7, MissingError, "HF_HUB_OFFLINE"), (1.4, UserError, "GB are free")]:
        repo = dataclasses.replace(row.published["bf16"], size_bytes=int(free * share))
        changed = dataclasses.replace(row, published={"bf16": repo})
        monkeypatch.setattr(choosing, "MODELS", {row.name: changed})
        with pytest.raises(error, match=said):
            prepared(weights, tmp_path)


# --- the command


def test_command_goes_on_past_a_failure_and_keeps_what_it_made(hub: Hub, tmp_path: Path) -> None:
    here = made(tmp_path / "here")
    done = bench(here, "prepare", f"model={MODEL}", "engine=vllm", "quantization=gptq,bf16")
    assert done.returncode == 1
    path = here.cache / "weights/hub/org--tiny@main/tiny"
    assert done.stdout == f"{MODEL} bf16: {path}  0.8 MiB\n"
    assert f"{MODEL} gptq as safetensors: model={MODEL} is bf16, not gptq" in done.stderr
    planned = told(here, "plan", f"model={MODEL}", "engine=vllm", "quantization=gptq")
    assert f"model={MODEL} is bf16, not gptq" in planned.stdout + planned.stderr
    assert planned.returncode == 2


def test_model_that_is_had_in_one_format_only_is_no_failure(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"tiny-BF16.gguf": gguf_of_type(32)}
    here = made(tmp_path / "here")
    done = bench(here, "prepare", f"model={MODEL}", "quantization=bf16")
    assert done.returncode == 0
    assert f"{MODEL} bf16 as safetensors: org/tiny has " in done.stderr
    planned = told(here, "plan", f"model={MODEL}", "engine=vllm", "quantization=bf16")
    assert "org/tiny has " in planned.stdout + planned.stderr
    assert planned.returncode == 2


def test_download_ends_with_a_command_that_is_killed(hub: Hub, tmp_path: Path) -> None:
    hub.is_stalled = True
    here = made(tmp_path / "here")
    with begun(here, "prepare", f"model={MODEL}", "quantization=bf16", "engine=vllm") as process:
        wait_until(lambda: any(path.endswith("/model.safetensors") for _, path, _ in hub.seen), 30)
        scripts = [each.pid for each in here.processes() if "inside/hub.py" in " ".join(each.cmdline())]
        assert scripts
        process.kill()
        wait_until(lambda: not any(map(is_running, scripts)), 20)
        wait_until(lambda: not here.processes(), 20)
