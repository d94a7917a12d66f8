"""`bench fit` as it is called: answers in words and in JSON, and mistakes in one line."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from bench_command import Place, bench, made, told
from checkpoint_files import write_checkpoint
from hub_server import Hub, serving

LLAMA = "model=llama-3.3-70b-instruct"
GPU = "fit.device_memory=80GB"
# Of a kind that no engine knows by name.
CONFIG = {
    "model_type": "newest", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_size": 64, "intermediate_size": 128, "vocab_size": 1000, "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = made(tmp_path_factory.mktemp("fit") / "p")
    (place.path / "tiny").mkdir()
    (place.path / "tiny" / "config.json").write_text(json.dumps(CONFIG))
    return place


def answered(place: Place, *words: str, **environment: str) -> str:
    # What is imported already has read its environment.
    done = (bench if environment else told)(place, "fit", *words, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_70b_on_one_gpu_of_80_gb_is_answered_in_words(here: Place) -> None:
    said = answered(here, LLAMA, GPU, "load.concurrency=4", "engine.context_length=8192")
    assert "Memory of each device: 74.5 GiB (as given" in said
    assert "70.6 B parameters" in said
    assert "4 users at once x 8,192 tokens, in GiB:" in said
    rows = {line[:22].strip(): line for line in said.splitlines()}
    assert "does not fit" in rows["vllm bf16"]
    assert rows["vllm bf16"].split()[2:4] == ["131.4", "10.0"]
    assert " fits " in rows["vllm awq"]
    assert "other*, vllm: assumed: " in said
    assert "KV cache per token: 320 KiB" in said


def test_it_is_json_with_all_that_the_words_say(here: Place) -> None:
    words = (LLAMA, GPU, "engine=vllm,llama_cpp", "quantization=awq", "device=0", "--json")
    said = json.loads(answered(here, *words))
    assert said["memory"] == {
        "device": "cuda", "device_bytes": 80_000_000_000, "devices": 1, "source": "as given",
    }  # fmt: skip
    about = said["models"]["llama-3.3-70b-instruct"]
    assert (about["facts"]["parameters"], about["is_estimated"]) == (70_553_706_496, False)
    [table] = said["tables"]
    assert (table["users"], table["context_length"]) == (4, 4096)
    [row] = table["rows"]
    need = row["need"]
    assert (row["engine"], row["quantization"], row["verdict"]) == ("vllm", "awq", "fits")
    assert row["total_bytes"] == need["weights_bytes"] + need["kv_cache_bytes"] + need["overhead_bytes"]
    assert need["is_assumed"] is True
    assert row["most_users"] > 4
    assert row["longest_context"] > 4096
    [unserved] = table["unserved"]
    assert unserved["label"] == "llama_cpp awq"
    assert "GGUF" in unserved["reason"]


@pytest.mark.parametrize("columns", [80, 200])
def test_names_and_numbers_are_whole_at_any_width_from_80(here: Place, columns: int) -> None:
    said = answered(
        here, LLAMA, GPU, "load.concurrency=32", "engine.context_length=8192", COLUMNS=str(columns)
    )
    lines = said.splitlines()
    assert max(map(len, lines)) <= columns
    row = next(line for line in lines if line.startswith("llama_cpp gguf-q4_k_m"))
    assert "does not fit" in row
    assert len(row.split()) == 12
    assert sum(line.startswith("vllm") for line in lines) == 3


def test_without_a_device_the_machine_is_meant(here: Place) -> None:
    said = answered(here, "device=cpu", "engine=llama_cpp")
    assert said.startswith("Memory of the machine: ")
    assert "smollm2-135m: 135 M parameters" in said
    assert "other, llama_cpp: measured: " in said


def test_two_devices_are_named_and_shared(here: Place) -> None:
    said = answered(here, LLAMA, GPU, 'device="0,1"', "engine=vllm", "quantization=fp8")
    assert "4 users at once x 4,096 tokens, 2 devices, in GiB:" in said
    assert " fits " in said


def test_several_questions_have_a_table_each(here: Place) -> None:
    words = (GPU, "model=qwen3-8b,qwen3-32b", "load.concurrency=8,64", "engine=vllm", "quantization=bf16")
    said = answered(here, *words)
    for question in ("qwen3-8b, 8 users", "qwen3-8b, 64 users", "qwen3-32b, 8 users", "qwen3-32b, 64 users"):
        assert f"{question} at once x 4,096 tokens, in GiB:" in said


def test_a_config_alone_is_enough_and_an_estimate_is_called_one(here: Place) -> None:
    words = ("engine=vllm", "quantization=bf16", "engine.context_length=2048", GPU)
    said = answered(here, "model=tiny/config.json", *words)
    assert "parameters estimated as if it were built like Llama" in " ".join(said.split())
    assert answered(here, "model=./tiny", *words).splitlines()[3:] == said.splitlines()[3:]


def test_without_a_number_of_users_as_many_are_meant_as_a_run_would_serve_at_once(here: Place) -> None:
    said = answered(here, LLAMA, GPU, "load.rate=2/s", "engine=vllm", "quantization=awq")
    assert "28 users at once x 4,096 tokens" in said


def test_the_same_study_serves_fit_and_run(here: Place) -> None:
    (here.path / "study.yaml").write_text(
        "model: qwen3-8b\nengine: [vllm]\nquantization: awq\nload.concurrency: 16\nload.duration: 60s\n"
        "repeats: 5\nuntil: ci:5%\n"
    )
    said = answered(here, "--from", "study.yaml", "fit.device_memory=24GiB")
    assert "16 users at once x 4,096 tokens" in said
    assert "vllm awq" in said


def test_the_hub_is_asked_when_told_to(here: Place) -> None:
    files = {"config.json": json.dumps(CONFIG).encode()}
    with serving(Hub("org/tiny", files, counted={"BF16": 500_000})) as hub:
        words = ("model=hf:org/tiny", "engine=vllm", "engine.context_length=2048", GPU)
        said = answered(here, *words, HF_ENDPOINT=hub.url, HF_HOME=str(here.path / "home"))
    assert "config.json on the hub, parameters counted by the hub" in " ".join(said.split())
    away = bench(here, "fit", *words, HF_ENDPOINT="http://127.0.0.1:1", HF_HOME=str(here.path / "home"))
    assert_one_line(away, "model=hf:org/tiny: http://127.0.0.1:1 cannot be reached")


def assert_one_line(done: CompletedProcess[str], said: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


MISTAKES = [
    ("fit fit.device_memory=lots", "fit.device_memory=lots: must be a size such as 24GiB, 24GB or 512MiB"),
    ("fit fit.device_memory=0", "fit.device_memory=0: must be 1.0 MiB or more"),
    ("fit fit.device_memory=-1GiB", "fit.device_memory=-1GiB: must be"),
    ("fit fit.device_memory=24GiB,48GiB", "fit.device_memory=24GiB,48GiB: cannot be swept"),
    ("fit fit.device_memroy=1GiB", "no such key; did you mean fit.device_memory? "),
    ("fit model=nope", "model=nope: no such model; see `bench list models`, or give a path"),
    ("fit model=/absent", "model=/absent: no such file or directory"),
    ("fit model=/dev/null", "model=/dev/null: no such file or directory"),
    ("fit fit.device_memory=24", "fit.device_memory=24: 24 bytes? write 24GiB or 24MiB"),
    ("plan engine=vllm quantization=bf16 engine.context_length=40000 device=cpu",
     "engine.context_length=40000 is more than smollm2-135m supports: give 8192 or less"),
    ("run engine=llama_cpp engine.context_length=40000",
     "engine.context_length=40000 is more than smollm2-135m supports: give 8192 or less"),
    (f"fit {LLAMA} engine.context_length=200000", "engine.context_length=200000 is more than llama-3.3-70b"),
    ("fit model=tiny/config.json",
     "engine.context_length=4096, the default, is more than tiny/config.json supports"),
    ("fit load.concurrency=0", "load.concurrency=0: must be 1 or more"),
    ("fit engine=vlm", "engine=vlm: no such engine; did you mean vllm? choose from anthropic"),
    ("fit engine=reference", "engine=reference: loads no weights; choose from llama_cpp, ollama, sglang"),
    ("fit quantization=int3", "quantization=int3: no such quantization"),
    ("fit device=cuda", "device=cuda: not a device"),
    ("fit device=gpu fit.device_memory=24GiB", "device=gpu: not a device"),
    ("fit fairness=stock", "engine.fairness=stock: each engine then takes"),
    ("fit until=ci:5%", "until=ci:5%: bench fit measures nothing; leave it out"),
    ("fit slo.success=99%", "slo.success=99%: bench fit measures nothing; leave it out"),
    ("fit quality.limit=0.1", "quality.limit=0.1: bench fit measures nothing; leave it out"),
    ("fit engine.base_url=http://127.0.0.1:1/v1", "a running server has its memory already"),
    ("fit engine.tensor_parallel=4 fit.device_memory=1GiB device=0,1", "device=0,1: cannot be swept"),
    ("run fit.device_memory=24GiB", "fit.device_memory=24GiB: is only for `bench fit`; leave it out"),
    ("plan fit.device_memory=24GiB", "fit.device_memory=24GiB: is only for `bench fit`; leave it out"),
]  # fmt: skip


def test_mistakes_are_one_line(here: Place) -> None:
    for words, said in MISTAKES:
        done = told(here, *words.split())
        try:
            assert_one_line(done, said)
        except AssertionError as error:
            raise AssertionError(f"{words}: {done.stdout}{done.stderr}") from error


def test_nothing_that_fits_is_an_answer(here: Place) -> None:
    assert " fits " not in answered(here, LLAMA, "fit.device_memory=8GiB").partition("fits: up to")[0]


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    answered(place, LLAMA, GPU)
    assert list(place.path.iterdir()) == []


# --- what a reader must be able to check -----------------------------------------------------------


def notes(said: str) -> str:
    return " ".join(said.partition("fits: up to")[2].split())


def test_windows_are_said_since_the_cache_is_not_tokens_times_its_bytes(here: Place) -> None:
    said = notes(answered(here, "model=gemma3-270m", "device=cpu", "engine=llama_cpp,vllm"))
    assert "KV cache per token: 18 KiB." in said
    assert "KV: 15 of 18 layers need only the last 512 tokens. Some engines keep all" in said
    assert "KV: " not in notes(answered(here, LLAMA, GPU))


def test_several_models_are_named_with_their_bytes_of_a_token(here: Place) -> None:
    said = notes(answered(here, "model=gemma3-270m,qwen3-8b", GPU, "engine=vllm", "quantization=bf16"))
    assert "KV cache per token, gemma3-270m: 18 KiB." in said
    assert "KV cache per token, qwen3-8b: 144 KiB." in said
    assert "KV, gemma3-270m: 15 of 18 layers need only the last 512 tokens" in said


def test_what_cannot_be_had_is_marked_in_words_and_in_json(here: Place) -> None:
    words = (GPU, "engine=vllm", "quantization=fp8,bf16")
    said = answered(here, *words)
    assert "\nvllm fp8 ! " in said
    assert "\nvllm bf16 ! " not in said
    reason = "smollm2-135m is not published as fp8, and bench cannot make it"
    assert f"! not available, vllm fp8: {reason}" in notes(said)
    [table] = json.loads(answered(here, *words, "--json"))["tables"]
    assert [row["why_not_had"] for row in table["rows"]] == [reason, None]
    assert "! not available, vllm fp8: llama-3.3-70b-instruct" in notes(answered(here, LLAMA, *words))
    assert "! not available" not in answered(
        here, "model=tiny/config.json", *words, "engine.context_length=64"
    )


def test_weights_on_this_machine_have_no_rows_that_cannot_be_made_of_them(here: Place) -> None:
    awq = {**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    write_checkpoint(here.path / "awq", awq)
    said = answered(here, "model=./awq", GPU, "engine.context_length=64")
    rows = {
        " ".join(line.split()[:2])
        for line in said.splitlines()
        if " fits " in line and "%" in line and not line.startswith("fits:")
    }
    assert rows == {"sglang awq", "tgi awq", "vllm awq"}
    assert "bf16" not in said.partition("KV cache per token")[0]


def test_a_share_of_the_device_is_said_not_to_be_counted(here: Place) -> None:
    said = notes(answered(here, GPU, "engine=vllm", "quantization=awq", "vllm.gpu_memory_utilization=0.5"))
    assert (
        "vllm.gpu_memory_utilization=0.5: ignored here; the numbers are for the whole memory of a device."
        in said
    )


def test_large_numbers_are_easy_to_read(here: Place) -> None:
    billion = {**CONFIG, "vocab_size": 7_810_000}  # 2 x 7,810,000 x 64 and little else
    (here.path / "billion.json").write_text(json.dumps(billion))
    said = answered(
        here, "model=./billion.json", GPU, "engine=vllm", "quantization=bf16", "load.concurrency=100000",
        "engine.context_length=64",
    )  # fmt: skip
    assert "1.00 B parameters" in " ".join(said.split())
    assert "100,000 users at once x 64 tokens" in said
