"""`bench bundle`, which gives no secret away, and `bench rerun`, which runs the same again."""

import base64
import gzip
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench_command import Place, bench, told

from serving_bench.harness.contracts import quoted
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store import checksums, secret_scan, store
from serving_bench.reports.page.looks import packed

KEY = "sk-Ab3/x+_9-Zq&7tR.w=E2"


def in_text(path: Path, key: str) -> None:
    path.write_text(f"{path.read_text()}\nAuthorization was {key}\n")


def in_record(path: Path, key: str) -> None:
    path.write_text(path.read_text().replace("{", f'{{"more": "Authorization was {key}",', 1))


def in_bytes(path: Path, key: str) -> None:
    path.write_bytes(path.read_bytes() + bytes(3 << 20) + key.encode() + bytes(9))


def in_texts(path: Path, key: str) -> None:
    table = pq.read_table(path)
    texts = ["", *[f"echo {key}"] * (len(table) - 1)]
    at = table.column_names.index("output_text")
    pq.write_table(table.set_column(at, "output_text", pa.array(texts)), path, compression="zstd")


def in_lists(path: Path, key: str) -> None:
    table = pq.read_table(path)
    pq.write_table(table.append_column("more", pa.array([[{"text": key}]] * len(table))), path)


def in_packed(path: Path, key: str) -> None:
    path.write_text(path.read_text() + str(packed("charts", json.dumps({"title": key}))))


PLACES: dict[str, tuple[str, Callable[[Path, str], None], str]] = {
    "a record": ("run.json", in_record, "line 1"),
    "a start's record": ("starts/01-reference/start.json", in_record, "line 1"),
    "a cell's record": ("cells/002/cell.json", in_record, "line 1"),
    "a server's log": ("starts/01-reference/server.log", in_text, "line "),
    "a load's log": ("cells/001/load.log", in_text, "line 2"),
    "answers": ("cells/001/requests.parquet", in_texts, "column output_text, row 2"),
    "samples": ("starts/01-reference/host.parquet", in_lists, "column more, row 1"),
    "bytes": ("starts/01-reference/sends.bin", in_bytes, "byte "),
    "the page": ("report.html", in_text, "line "),
    "the page's charts": ("report.html", in_packed, "in its compressed data"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_key_in_any_kind_of_file_keeps_a_run_from_being_bundled(place, run_copy, tmp_path):
    name, plant, where = PLACES[place]
    plant(run_copy / name, KEY)
    checksums.relist(run_copy, name)
    said = told(Place(tmp_path), "bundle", "run", "--allow-lookalikes", MY_API_KEY=KEY)
    assert (said.returncode, said.stdout) == (2, "")
    assert f"{name}, {where}" in said.stderr
    assert "the value of MY_API_KEY\n" in said.stderr
    assert KEY[:9] not in said.stderr
    assert list(tmp_path.iterdir()) == [run_copy]


def test_a_key_in_base64_is_found_and_one_of_others_by_its_form(run_copy, tmp_path):
    log = run_copy / "starts/01-reference/server.log"
    log.write_text("one\ntwo " + base64.b64encode(f"me:{KEY}".encode()).decode() + "\n")
    checksums.relist(run_copy, "starts")
    said = told(Place(tmp_path), "bundle", "run", MY_API_KEY=KEY)
    assert "server.log, line 2: the value of MY_API_KEY" in said.stderr
    log.write_text("one\n\nAKIAIOSFODNN7EXAMPLE, -----BEGIN RSA PRIVATE KEY-----\n")
    checksums.relist(run_copy, "starts")
    said = told(Place(tmp_path), "bundle", "run")
    assert said.returncode == 2
    assert "server.log, line 3: a well-known token\n" in said.stderr
    assert "server.log, line 3: a private key\n" in said.stderr
    assert "--allow-lookalikes" in said.stderr
    said = told(Place(tmp_path), "bundle", "run", "--allow-lookalikes")
    assert (said.returncode, said.stdout, said.stderr) == (0, "run.tar.gz\n", "")


@pytest.mark.parametrize("parts", [(b"a" * 5_000 + KEY.encode(),), (b"a", KEY.encode())])
def test_what_a_page_has_packed_is_searched_whole_or_refused(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(secret_scan, "_MOST_UNPACKED_BYTES", 1_000)
    data = base64.b64encode(b"".join(map(gzip.compress, parts)))
    (tmp_path / "report.html").write_bytes(b"<script>" + data + b"</script></html>")
    with pytest.raises(StoreError, match=r"report\.html: damaged .*; `bench report` writes it again"):
        list(secret_scan.secrets_of(tmp_path, "report.html", {"MY_API_KEY": KEY}))


def test_a_run_without_a_page_gets_one_and_one_without_checksums_too(run_copy, tmp_path):
    (run_copy / "report.html").unlink()
    (run_copy / "SHA256SUMS").unlink()
    said = told(Place(tmp_path), "bundle", "run", "--output", "b.tar.gz")
    assert (said.returncode, said.stdout) == (0, "b.tar.gz\n"), said.stderr
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        assert {"run/report.html", "run/SHA256SUMS"} < set(tar.getnames())
    assert told(Place(tmp_path), "verify", "b.tar.gz").returncode == 0


def test_verify_names_what_is_damaged_in_a_bundle(run_copy, tmp_path):
    record = run_copy / "cells/001/cell.json"
    record.write_text(record.read_text().replace('"seed": ', '"seed": 1', 1))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        for name in ("SHA256SUMS", *(name for name, _ in checksums.files(run_copy))):
            tar.add(run_copy / name, f"run/{name}")
    said = told(Place(tmp_path), "verify", "b.tar.gz")
    assert (said.returncode, said.stdout[:31]) == (1, "cells/001/cell.json: changed (n")
    for words in (("rerun",), ("compare", "run")):
        said = told(Place(tmp_path), *words, "b.tar.gz")
        assert (said.returncode, said.stdout) == (2, "")
        assert "b.tar.gz: damaged: cells/001/cell.json: changed" in said.stderr


def test_a_bundle_replaces_no_file_but_one_of_the_same_run(run_copy, tmp_path):
    (tmp_path / "run.tar.gz").write_text("mine")
    said = told(Place(tmp_path), "bundle", "run")
    assert (said.returncode, said.stdout) == (2, "")
    assert "run.tar.gz: exists and is not a bundle of this run; give another --output" in said.stderr
    assert (tmp_path / "run.tar.gz").read_text() == "mine"
    for _ in range(2):
        said = told(Place(tmp_path), "bundle", "run", "--output", "b.tar.gz", "--json")
        assert json.loads(said.stdout)["bundle"] == "b.tar.gz"


def test_verify_says_once_how_to_go_on_with_a_run_that_was_killed(run_copy, tmp_path):
    record = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_text(json.dumps({**record, "status": "running"}) + "\n")
    (run_copy / "SHA256SUMS").write_text("")
    said = told(Place(tmp_path), "verify", "run")
    assert (said.returncode, said.stdout.count("\n")) == (1, 1)
    assert "not listed yet; `bench run --resume run` goes on with it" in said.stdout


def test_verify_says_nothing_of_a_whole_run_when_it_is_to_be_quiet(run_copy, tmp_path):
    said = told(Place(tmp_path), "verify", "run", "--quiet")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_a_run_whose_record_is_cut_is_told_what_helps(run_copy, tmp_path):
    record = run_copy / "run.json"
    record.write_bytes(record.read_bytes()[:500])
    said = told(Place(tmp_path), "report", "run")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert said.stderr.endswith("; restore it from a copy or a bundle of this run\n")


def test_what_is_neither_a_directory_nor_a_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    said = told(Place(tmp_path), "verify", "pipe")
    assert (said.returncode, said.stderr.partition(";")[0]) == (
        2,
        "pipe: is neither a directory nor a bundle",
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda path: path.write_text("text"),
            "not a bundle (Not a gzipped file); `bench bundle DIR` makes one",
        ),
        (
            lambda path: path.unlink(),
            "no run here (no such file or directory); give a directory that `bench run` made, or a bundle of",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "damaged"),
    ],
)
def test_what_is_no_bundle_is_not_run_again(change, said, run_copy, tmp_path):
    assert told(Place(tmp_path), "bundle", "run").returncode == 0
    change(tmp_path / "run.tar.gz")
    done = told(Place(tmp_path), "rerun", "run.tar.gz")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_that_is_not_here_is_said_as_a_run_says_it(run_copy, tmp_path):
    asked_for = {"engine": "llama_cpp", "model": "nowhere-1b", "quantization": "gguf"}
    record = json.loads((run_copy / "run.json").read_text())
    record["settings"] = {key: [value] for key, value in asked_for.items()}
    (run_copy / "run.json").write_text(json.dumps(record))
    said = told(Place(tmp_path), "rerun", "run", "model=nowhere-1b")
    asked = told(Place(tmp_path), "run", *(f"{key}={value}" for key, value in asked_for.items()))
    assert said.returncode == asked.returncode == 2
    assert said.stderr == asked.stderr


def test_a_run_that_another_tool_measured_has_no_plan(run_copy, tmp_path):
    record = json.loads((run_copy / "run.json").read_text())
    record["foreign"] = {"tool": "aiperf", "version": None, "files": {}}
    (run_copy / "run.json").write_text(json.dumps(record))
    said = told(Place(tmp_path), "rerun", "run")
    assert (said.returncode, said.stderr) == (2, "run: was measured by aiperf, whose plan is not known\n")


def test_the_plan_of_a_rerun_shows_what_differs_and_starts_nothing(run_copy, tmp_path):
    record = json.loads((run_copy / "run.json").read_text())
    record["environment"]["machine"]["cpu_model"] = "Abacus 9000"
    record["environment"]["packages"]["serving-bench"] = "0.0.1"
    record["environment"]["variables"]["OMP_NUM_THREADS"] = "77"
    start = json.loads((run_copy / "starts/01-reference/start.json").read_text())
    start["weights"] = {"sha256": "ab" * 32}
    (run_copy / "run.json").write_text(json.dumps(record))
    (run_copy / "starts/01-reference/start.json").write_text(json.dumps(start))
    said = told(Place(tmp_path), "rerun", "run", "seed=5", "load.concurrency=2", "--plan", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    unlike = {each["what"]: (each["a"], each["b"]) for each in found["differences"]}
    assert unlike["machine.cpu_model"][0] == "Abacus 9000"
    assert unlike["packages.serving-bench"][0] == "0.0.1"
    assert unlike["environment OMP_NUM_THREADS"][0] == "77"
    assert unlike["weights sha256"] == ("ab" * 32, "not here yet")
    assert unlike["load.concurrency"] == ("1,2", "2")
    assert unlike["seed"] == ("1", "5")
    assert (found["cells"], found["other_cells"]) == (1, 1)
    said = told(Place(tmp_path), "rerun", "run", "--plan")
    assert "Abacus 9000" in said.stdout
    assert "run: 2 cells to run, as it was planned, with its seed, load and scenario\n" in said.stdout
    assert list(tmp_path.iterdir()) == [run_copy]


def test_a_rerun_has_the_cells_that_were_planned_before_the_first_start(run_copy, tmp_path):
    record = store.read_run(run_copy)
    [start] = record.plan.starts
    seeded = replace(start, cells=tuple(replace(cell, seed=7) for cell in start.cells[::-1]))
    plan = replace(record.plan, starts=(seeded,))
    settings, why = {**record.settings, "repeats": ("3",)}, quoted("no time")
    store.write_record(
        run_copy / "run.json", replace(record, plan=plan, settings=settings, stopped_because=why)
    )
    said = told(Place(tmp_path), "rerun", "run", "--plan", "--json", "guard=off")
    found = json.loads(said.stdout)
    first, *others = (
        [(cell["number"], cell["seed"]) for cell in each["cells"]] for each in found["plan"]["starts"]
    )
    assert (found["cells"], found["other_cells"], first) == (6, 0, [(2, 7), (1, 7)])
    assert [sorted(number for number, _ in each) for each in others] == [[3, 4], [5, 6]]
    said = told(Place(tmp_path), "rerun", "run", "--plan")
    assert "run: 6 cells to run, as it was planned, with its seed, load and scenario; " in said.stdout
    assert "; it left out 4 of them: no time\n" in said.stdout
    said = told(Place(tmp_path), "rerun", "run", "--plan", "load.concurrency=1")
    assert "run: 3 cells to run, planned again since load.concurrency changed; 0 of them with" in said.stdout


def test_a_rerun_reads_bare_seconds_of_an_earlier_bench_and_asks_a_user_for_the_unit(run_copy, tmp_path):
    record = store.read_run(run_copy)
    assert record.settings["load.duration"] == ("10s",)
    settings = {**record.settings, "load.duration": ("10",)}
    store.write_record(run_copy / "run.json", replace(record, settings=settings))
    (run_copy / "SHA256SUMS").unlink()  # an earlier bench wrote none
    place = Place(tmp_path)
    assert told(place, "bundle", "run").returncode == 0
    for source in ("run", "run.tar.gz"):
        said = told(place, "rerun", source, "--plan", "--json")
        assert said.returncode == 0, said.stderr
        found = json.loads(said.stdout)
        assert "load.duration" not in {each["what"] for each in found["differences"]}
        assert (found["cells"], found["other_cells"]) == (2, 0)
    refused = told(place, "rerun", "run", "load.duration=10", "--plan")
    assert refused.returncode == 2
    assert "load.duration=10: needs a unit; write 10s" in refused.stderr


def test_a_rerun_plays_the_same_conversations_and_says_how_to_compare(measured_run, tmp_path):
    place = Place(tmp_path)
    assert told(place, "bundle", measured_run, "--output", "b.tar.gz").returncode == 0
    done = bench(place, "rerun", "b.tar.gz", "--output", "again")
    assert (done.returncode, done.stdout) == (0, "again/report.html\n"), done.stderr
    assert "b.tar.gz: 2 cells to run, as it was planned, with its seed, load and scenario" in done.stderr
    assert done.stderr.splitlines()[-1] == "bench compare b.tar.gz again"
    was, now = (conversations(folder) for folder in (measured_run, tmp_path / "again"))
    assert was == now
    assert len(was) >= 6
    assert checksums.findings(tmp_path / "again") == []
    for words in (("compare",), ("gate", "gate.metric=ttft_s.p50")):
        said = told(place, *words, "b.tar.gz", "again", "--json")
        assert said.returncode in (0, 3), said.stderr
        compared = json.loads(said.stdout)
        sides = compared.get("compared", compared)
        assert (sides["a"], sides["b"]) == ("b.tar.gz", "again")


def conversations(run_dir: Path) -> set[tuple[object, ...]]:
    """Of each request what was sent, as far as it is on record."""
    names = ["conversation", "turn", "turns", "input_tokens", "max_tokens", "sent_words"]
    return {
        (record.number, record.seed, *row.values())
        for record in store.read_cells(run_dir)
        for row in store.read_requests(store.cell_dir(run_dir, record.number), names).to_pylist()
    }
