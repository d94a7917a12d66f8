"""Whatever a server answers costs the requests that it answers so, and nothing else."""

import json
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import pytest
from bench_command import Place, attached, begun, bench, ended, made
from held_ports import held_port
from reference_serving import serving as serving_reference
from server_faults import AT_ONCE, GOOD_LIST, IN_TIME, KEY, LISTED, LISTS, PAGES, Fault, pages_of, player
from timeline_server import serving
from waiting import patient, wait_until

from serving_bench.harness.store import store

GOOD = Fault("good", b"", "ok")
CONTROL = ("\x1b[2J", "\x1b]52")
LIMIT_S = 3.0
USERS = 4


def running(base_url: str, *words: str, engine: str = "openai", model: str = "tiny") -> list[str]:
    keys = attached(base_url, f"model={model}", "engine.api_key_env=FAULTS_KEY", *words, engine=engine)
    return ["run", *keys, "--output", "run"]


def measured(
    place: Place,
    cells: Sequence[Sequence[Fault]],
    *words: str,
    page_of: Callable[[str], Fault | None] = GOOD_LIST,
    engine: str = "openai",
) -> subprocess.CompletedProcess[str]:
    """Measure a server whose answers have these faults, in a cell for each list of them."""
    for number, faults in enumerate(cells):
        prompts = [json.dumps({"prompt": fault.name, "max_tokens": 4}) for fault in faults]
        (place.path / f"{number}.jsonl").write_text("\n".join(prompts))
    paths = ",".join(f"{number}.jsonl" for number in range(len(cells)))
    load = {
        "load.conversations": max(map(len, cells)),
        "load.concurrency": USERS,
        "load.duration": "null",
        "load.warmup": "0s",
        **dict(word.split("=", 1) for word in words),
    }
    named = {fault.name: fault for faults in cells for fault in faults if fault is not GOOD}
    with serving(player(named, page_of)) as server:
        own = ["scenario=file", f"scenario.path={paths}", *(f"{key}={value}" for key, value in load.items())]
        limit_s = 90.0 + 3 * len(cells)
        done = bench(place, *running(server.url, *own, engine=engine), limit_s=limit_s, FAULTS_KEY=KEY)
    said = done.stdout + done.stderr
    assert not [each for each in ("Traceback", KEY, *CONTROL) if each in said], said
    holding = [path for path in place.path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not holding
    return done


def cells_of(place: Place) -> list[dict[str, Any]]:
    """The cells in the order of the lists that `measured` was given: a start plays them in another."""
    return sorted(
        place.cells().values(), key=lambda cell: int(Path(cell["scenario"]["options"]["path"]).stem)
    )


def wrong_rows(place: Place, cell: int, faults: Sequence[Fault]) -> list[str]:
    """What the requests of a cell became that they should not, by the names of their faults."""
    rows = store.read_requests(store.cell_dir(place.run_dir, cell)).to_pylist()
    assert sorted(row["conversation"] for row in rows) == list(range(len(rows)))
    told = []
    for row in rows:
        fault, error = faults[row["conversation"] % len(faults)], row["error"] or ""
        has_error = fault.error is not None or fault.outcome != "ok"
        if row["outcome"] != fault.outcome or (fault.error or "") not in error or has_error != bool(error):
            told.append(f"{fault.name}: {row['outcome']}, {error}")
    return told


def test_each_bad_answer_costs_its_own_request_alone(tmp_path: Path) -> None:
    place, faults = made(tmp_path / "p"), [each for fault in AT_ONCE for each in (fault, GOOD)]
    done = measured(place, [faults])
    assert wrong_rows(place, 1, faults) == []
    (cell,) = place.cells().values()
    assert (done.returncode, cell["status"], cell["validity"]) == (0, "completed", "suspect")
    # The window ends when a user finds no more to begin: what others have drawn may be sent after it.
    rows = store.read_requests(store.cell_dir(place.run_dir, 1)).to_pylist()
    sent = [row["outcome"] for row in rows if row["in_window"]]
    assert len(sent) > len(faults) - USERS
    failed = len(sent) - sent.count("ok")
    assert f"{failed} of {len(sent)} requests in the window failed" in cell["reasons"]
    assert "</html>" in place.report()


@pytest.mark.faults
def test_a_cell_of_one_bad_answer_alone_counts_only_where_that_is_ok(tmp_path: Path) -> None:
    parts = [AT_ONCE[0::2], AT_ONCE[1::2]]
    places = [made(tmp_path / str(number)) for number in range(len(parts))]
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(measured, places, [[[fault] * 2 for fault in part] for part in parts]))
    assert [done.returncode for done in runs] == [1, 1]
    for place, part in zip(places, parts, strict=True):
        cells = cells_of(place)
        wrong = [
            each
            for cell, fault in zip(cells, part, strict=True)
            for each in wrong_rows(place, cell["number"], [fault])
        ]
        assert wrong == []
        expected = ["completed" if fault.outcome == "ok" else "failed" for fault in part]
        assert [cell["status"] for cell in cells] == expected
        assert "</html>" in place.report()


@pytest.mark.faults
def test_a_server_that_does_not_end_costs_the_time_that_a_request_has(tmp_path: Path) -> None:
    place, faults = made(tmp_path / "p"), [*IN_TIME, *[GOOD] * 8]
    users = f"load.concurrency={len(faults)}"
    done = measured(place, [faults, [IN_TIME[0]] * 2], f"load.timeout={patient(LIMIT_S):.1f}s", users)
    first, second = cells_of(place)
    assert wrong_rows(place, first["number"], faults) == []
    assert (first["status"], second["status"], done.returncode) == ("completed", "failed", 1)


@pytest.mark.faults
def test_a_bad_list_of_models_is_passed_over_or_refused_in_one_line(tmp_path: Path) -> None:
    def measure(number: int) -> str:
        fault, place = LISTS[number], made(tmp_path / str(number))
        pages = pages_of(models=chain([fault], cycle([Fault("listed", LISTED, "ok")])))
        done = measured(place, [[GOOD]], f"engine.start_timeout={patient(LIMIT_S):.1f}s", page_of=pages)
        is_right = done.returncode == 0 if fault.outcome == "ok" else _is_refused(done, str(fault.error))
        return "" if is_right else f"{fault.name}: {done.returncode}, {done.stderr[:500]}"

    with ThreadPoolExecutor(4) as pool:
        assert [said for said in pool.map(measure, range(len(LISTS))) if said] == []


def _is_refused(done: subprocess.CompletedProcess[str], error: str) -> bool:
    *_, last = done.stderr.splitlines()
    return (done.returncode, done.stdout) == (2, "") and error in last and len(last) < 1000


@pytest.mark.faults
def test_bad_pages_of_facts_and_metrics_cost_no_request(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    pages = pages_of(
        version=cycle(PAGES),
        metrics=cycle(PAGES),
        models=chain([Fault("listed", LISTED, "ok")], cycle(PAGES)),
    )
    words = ("repeats=10", "load.conversations=40")
    done = measured(place, [[GOOD]], *words, page_of=pages, engine="vllm")
    assert done.returncode == 0, done.stderr
    assert {cell["status"] for cell in place.cells().values()} == {"completed"}
    assert all(wrong_rows(place, number, [GOOD]) == [] for number in place.cells())
    assert bench(place, "report", "run").returncode == 0


@pytest.mark.faults
def test_a_running_server_that_dies_costs_what_it_left_undone(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    with held_port() as port:
        lasting = ("--ttft-s=0.02", "--itl-s=0.002", f"--port={port}")
        words = running(f"http://127.0.0.1:{port}/v1", "load.duration=2s", "repeats=2", model="reference")
        with serving_reference(*lasting) as server, begun(place, *words, FAULTS_KEY=KEY) as process:
            wait_until(lambda: place.rows_so_far(1) >= 5, 60)
            server.process.kill()
            done = ended(process)
        assert "Traceback" not in done.stderr
        assert done.returncode == 1
        rows = store.read_requests(store.cell_dir(place.run_dir, 1)).to_pylist()
        assert {row["outcome"] for row in rows} <= {"ok", "reset", "connect_error"}
        assert sum(row["outcome"] == "ok" for row in rows) >= 5
        assert [cell["status"] for _, cell in sorted(place.cells().items())] == ["completed", "failed"]
        with serving_reference(*lasting):
            done = bench(place, "run", "--resume", "run", FAULTS_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert {cell["status"] for cell in place.cells().values()} == {"completed"}
