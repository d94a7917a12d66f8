"""What a run, a bundle or a claim of somebody else's makes bench do: nothing that its user has not typed."""

import json
import shlex
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench_command import BENCH, Place, bench, told
from shell_script import shell_script
from terminal import on_terminal

from serving_bench.harness.errors import StoreError
from serving_bench.harness.run.recorded import choices_of
from serving_bench.harness.store import checksums, store

LABEL = "a b"  # a text that no option of an engine needs


def asking_for(run_dir: Path, **settings: str | tuple[str, ...]) -> None:
    """Make a run somebody else's, and let it ask for more, with checksums as if bench had written it."""
    record = store.read_run(run_dir)
    more = {key.replace("__", "."): (own,) if isinstance(own, str) else own for key, own in settings.items()}
    given = {**record.settings, **more}
    store.write_record(run_dir / "run.json", replace(record, settings=given), is_own=False)
    checksums.relist(run_dir, "run.json")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A program that leaves a file beside itself when it is run."""
    return shell_script(tmp_path / "evil", 'touch "$0.was-run"')


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def was_asked(server: socket.socket) -> bool:
    try:
        server.accept()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("source", ["run", "run.tar.gz"])
@pytest.mark.parametrize("more", [(), ("--plan",), ("--plan", "--json")])
def test_a_program_named_in_a_run_is_not_run_and_named_in_one_line(source, more, run_copy, script, tmp_path):
    asking_for(run_copy, engine="llama_cpp", llama_cpp__program=str(script), quantization="gguf-q8_0")
    place = Place(tmp_path)
    assert told(place, "bundle", "run").returncode == 0
    said = told(place, "rerun", source, "model=smollm2-135m", *more)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.splitlines()[-1] == (
        f"{source}: asks for llama_cpp.program={script}; no file decides that: type it if you mean it"
    )
    assert not Path(f"{script}.was-run").exists()


def test_a_bundle_sends_no_key_to_its_address(run_copy, listener, tmp_path):
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    asking_for(
        run_copy, engine="openai", engine__base_url=f'"{url}"', engine__api_key_env="MY_SECRET", model="x"
    )
    said = told(Place(tmp_path), "rerun", "run", MY_SECRET="a-secret-of-mine")
    assert said.returncode == 2
    line = said.stderr.splitlines()[-1]
    words = f"engine.base_url={url} engine.api_key_env=MY_SECRET model=x"
    assert line == f"run: asks for {words}; no file decides that: type it if you mean it"
    assert "a-secret-of-mine" not in said.stderr
    assert not was_asked(listener)
    # What the user types again counts, each value by itself.
    typed = shlex.split(words)
    part = told(Place(tmp_path), "rerun", "run", *typed[:1], "model=x")
    assert "asks for engine.api_key_env=MY_SECRET;" in part.stderr
    assert not was_asked(listener)


@pytest.mark.parametrize("text", ["range(0,100000000)", '"a",range(0,100000000)', "1,2,3"])
def test_a_setting_that_stands_for_millions_of_values_is_damage(text, run_copy, tmp_path):
    asking_for(run_copy)
    record = store.read_run(run_copy)
    given = {**record.settings, "load.rate": [text]}
    store.write_record(run_copy / "run.json", replace(record, settings=given), is_own=False)
    said = told(Place(tmp_path), "rerun", "run", "--plan")
    assert (said.returncode, "damaged (settings: more values than bench writes)" in said.stderr) == (2, True)


@pytest.mark.parametrize("value", ["\x1b[2J\n", "'", ""])
def test_a_setting_that_cannot_be_read_names_its_file(value: str) -> None:
    record = SimpleNamespace(settings={"quantization": [value]})
    with pytest.raises(StoreError, match=r"run\.json: damaged \(settings: quantization=[^\x1b\n]*\)$"):
        choices_of(record)


def test_a_run_of_many_combinations_is_not_planned(run_copy, tmp_path):
    record, many = store.read_run(run_copy), tuple(map(str, range(1, 40)))
    given = {**record.settings, "load.rate": many, "engine.context_length": many}
    store.write_record(run_copy / "run.json", replace(record, settings=given), is_own=False)
    said = told(Place(tmp_path), "rerun", "run", "--plan")
    assert (said.returncode, "combinations of values" in said.stderr) == (2, True)


def test_verify_lists_what_a_run_asks_for(run_copy, script, tmp_path):
    asking_for(run_copy, llama_cpp__program=str(script), vllm__image="evil/image:latest")
    place = Place(tmp_path)
    said = told(place, "verify", "run")
    assert said.returncode == 0
    assert said.stdout.splitlines()[:2] == [
        f"run: asks for llama_cpp.program={script}: to take it, type it",
        "run: asks for vllm.image=evil/image:latest: to take it, type it",
    ]
    found = json.loads(told(place, "verify", "run", "--json").stdout)
    assert found["asks_for"] == [f"llama_cpp.program={script}", "vllm.image=evil/image:latest"]


def test_a_run_that_is_resumed_asks_for_nothing_new(run_copy, script, tmp_path):
    asking_for(run_copy, llama_cpp__program=str(script))
    for command in ("run", "search"):
        said = told(Place(tmp_path), command, "--resume", "run")
        assert said.returncode == 2
        assert said.stderr.splitlines()[-1].startswith(f"run: asks for llama_cpp.program={script};")
    other = told(Place(tmp_path), "run", "--resume", "run", "llama_cpp.program=llama-server")
    assert "the only key to give with it is repeats=N" in other.stderr


def test_a_run_of_ones_own_asks_nothing_until_somebody_changes_it(tmp_path):
    place = Place(tmp_path)
    words = ("engine=reference", f"reference.label='{LABEL}'", "load.duration=0.3s", "load.warmup=0.1s",
             "repeats=1", "load.concurrency=1", "load.min_requests=1", "guard=off")  # fmt: skip
    assert bench(place, "run", *words, "--output", "run").returncode == 0
    assert (place.cache / "own.key").stat().st_mode & 0o777 == 0o600
    assert told(place, "rerun", "run", "--plan").returncode == 0
    assert told(place, "bundle", "run").returncode == 0
    assert told(place, "rerun", "run.tar.gz", "--plan").returncode == 0
    path = place.run_dir / "run.json"
    path.write_text(path.read_text().replace('"repeats": [\n   "1"', '"repeats": [\n   "2"'))
    said = told(place, "rerun", "run", "--plan")
    assert (said.returncode, "asks for 'reference.label=\"a b\"';" in said.stderr) == (2, True)
    elsewhere = told(place, "rerun", "run.tar.gz", "--plan", BENCH_CACHE_DIR=str(tmp_path / "other"))
    assert (elsewhere.returncode, "asks for" in elsewhere.stderr) == (2, True)


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2), ("", 2)])
def test_each_value_is_asked_for_on_a_terminal(answer, code, run_copy, tmp_path):
    asking_for(run_copy, reference__label=f'"{LABEL}"', load__workers="1")
    place = Place(tmp_path)
    words = ("rerun", "run", "load.duration=0.3s", "load.concurrency=1", "load.min_requests=1", "repeats=1")
    done = on_terminal([BENCH, *words], tmp_path, place.environment(), 200, typed=f"{answer}\n")
    assert done.code == code, done.words
    assert "run asks for load.conversations=3 load.warmup=0s load.workers=1" in done.words
    assert 'run asks for reference.label="a b". Do you agree? (y/N) ' in done.words
    assert ("to which you did not agree" in done.words) == (code == 2)


def test_each_value_of_a_list_is_asked_for_by_itself(run_copy, tmp_path):
    asking_for(run_copy, reference__label=(f'"{LABEL}"', '"c d"', '"e f"'))
    place = Place(tmp_path)
    done = on_terminal([BENCH, "rerun", "run"], tmp_path, place.environment(), 60, typed="y\nn\n")
    assert done.code == 2, done.words
    assert 'run asks for reference.label="a b". Do you agree? (y/N) ' in done.words
    assert 'run asks for reference.label="c d". Do you agree? (y/N) ' in done.words
    assert "e f" not in done.words


@pytest.mark.parametrize("command", ["rerun", "verify"])
@pytest.mark.parametrize("key", ["quality.text", "model", "load.workers", "reference.label"])
def test_a_text_of_a_megabyte_is_shown_in_one_line(command, key, run_copy, tmp_path):
    text = {"model": "hf:", "quality.text": "/"}.get(key, "") + "x" * 1_000_000
    asking_for(run_copy, **{key: f'"{text}"', "engine.base_url": '"http://127.0.0.1:1/v1"'})
    said = told(Place(tmp_path), command, "run")
    assert len(said.stdout + said.stderr) < 1500
    if command == "verify":  # whatever else is there
        assert "run: asks for engine.base_url=http://127.0.0.1:1/v1: to take it, type it" in said.stdout
    else:
        assert said.returncode == 2


def test_a_claim_in_a_file_runs_nothing_and_one_of_benchs_own_asks_nothing(script, tmp_path):
    own = (Path(__file__).parents[3] / "scenarios/claims/kv_waste.yaml").read_text()
    (tmp_path / "claim.yaml").write_text(own.replace("here:\n", f"here:\n  llama_cpp.program: {script}\n"))
    said = told(Place(tmp_path), "claim", "claim.yaml")
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith(f"claim.yaml: asks for llama_cpp.program={script};")
    assert not Path(f"{script}.was-run").exists()
