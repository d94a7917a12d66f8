"""`bench view`: the index of runs, and what is kept of each so that it is quick."""

import json
import os
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import unquote_to_bytes

import msgspec
import pytest
from bench_command import made, told
from make_run import HOSTILE, S, all_failed_run, empty_run, full_run, one_cell_run, row

from serving_bench.harness.cli.ending import report_whatever_happened, tell
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.errors import UserError
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import DIGEST_FILE
from serving_bench.reports import open_run, write_report
from serving_bench.reports.page.several_runs import index_page, index_rows, write_index
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.digest import digest, sources_of

T0 = 102 * S
HOSTILE_NAME = "<b onclick=alert(1)>x&\"'#%?\u2028 y"


def small_run(path: Path, created_at: str = "2026-01-02T03:04:05+00:00") -> Path:
    one_cell_run(path, [row(k, T0 + k * S // 4) for k in range(20)])
    record = replace(store.read_run(path), created_at=created_at)
    store.write_record(path / "run.json", record)
    return path


def kept(path: Path) -> tuple[list[int], dict[str, object]]:
    return json.loads((path / DIGEST_FILE).read_text())


def rows_of(page: str) -> list[str]:
    return re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2].partition("</tbody>")[0])


def page_of(root: Path, beside: Path | None = None) -> str:
    return index_page(root, index_rows(root), beside or root)


# --- finding ---------------------------------------------------------------------------------------


def test_runs_are_found_some_levels_below_and_not_within_runs_or_twice(tmp_path: Path) -> None:
    deep = empty_run(tmp_path / "a" / "b" / "c" / "d")
    too_deep = empty_run(tmp_path / "a" / "b" / "c" / "e" / "f")
    within = empty_run(deep / "starts" / "00")
    hidden = empty_run(tmp_path / ".cache" / "x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [each.directory for each in index_rows(tmp_path)]
    assert found == [deep]
    assert not {too_deep, within, hidden} & set(found)


def test_a_run_itself_is_listed_and_nothing_is_written_into_it(tmp_path: Path) -> None:
    path = small_run(tmp_path / "one")
    rows = index_rows(path)
    assert [each.directory for each in rows] == [path]
    with pytest.raises(
        UserError, match=rf"that is one run; give the directory above: bench view {tmp_path}$"
    ):
        write_index(path, rows)
    assert not (path / "index.html").exists()
    assert write_index(path, rows, tmp_path / "all.html").is_file()


# --- the page --------------------------------------------------------------------------------------


def test_each_run_has_a_row_newest_first_that_leads_to_its_report(tmp_path: Path) -> None:
    small_run(tmp_path / "old", "2026-01-01T00:00:00+00:00")
    new = small_run(tmp_path / "new", "2026-02-01T00:00:00+00:00")
    write_report(new)
    first, second = rows_of(page_of(tmp_path))
    assert 'href="new/report.html"' in first
    assert "How does llama_cpp fp16 serve tiny-lm on Test CPU?" in first
    for said in ("2026-02-01</span> 00:00", "chat_multi_turn", "1 user", "1 of 1", "output tokens/s"):
        assert said in first
    assert "href" not in second
    assert f"bench report {tmp_path / 'old'}" in unescape(second)


def test_names_of_directories_and_labels_are_inert_and_their_links_work(tmp_path: Path) -> None:
    path = full_run(tmp_path / HOSTILE_NAME)
    write_report(path)
    page = page_of(tmp_path)
    body = page.partition("<body>")[2]
    assert "<b onclick" not in body
    assert "<img" not in body.partition("<script>")[0]
    [link] = re.findall(r'href="([^"]*report\.html)"', body)
    assert (tmp_path / os.fsdecode(unquote_to_bytes(unescape(link)))).is_file()
    assert not set(link) & set(" #?<>\"'")
    assert HOSTILE.split()[0] in unescape(body)


def test_a_name_that_is_no_text_has_a_link_that_works(tmp_path: Path) -> None:
    write_report(small_run(tmp_path / "a"))
    small_run(tmp_path / "b")
    try:
        os.rename(tmp_path / "a", tmp_path / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system takes text only")
    os.rename(tmp_path / "b", tmp_path / os.fsdecode(b"\xe9"))
    page = page_of(tmp_path)
    page.encode()
    assert "caf\ufffd" in page
    assert 'href="caf%E9/report.html"' in page
    assert "Cannot be read" not in page


def test_links_begin_where_the_page_is(tmp_path: Path) -> None:
    write_report(small_run(tmp_path / "runs" / "one"))
    (tmp_path / "site").mkdir()
    assert 'href="../runs/one/report.html"' in page_of(tmp_path / "runs", tmp_path / "site")


def test_runs_that_cannot_be_read_stand_below_with_the_reason(tmp_path: Path) -> None:
    for name, text in (("cut", "{"), ("newer", '{"schema_version": 99, "run_id": "x"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    parquet = next(small_run(tmp_path / "damaged").glob("cells/*/requests.parquet"))
    parquet.write_bytes(parquet.read_bytes()[:-20])
    empty_run(tmp_path / "empty")
    page = page_of(tmp_path)
    [only] = rows_of(page)
    assert "No answer. No cell has a value that counts" in only
    said = page.partition("Cannot be read")[2]
    assert said.count("<li>") == 3
    assert "run.json: damaged (" in said
    assert "written by a newer bench (schema 99)" in said


def test_a_page_without_a_script_has_every_row_and_with_one_no_network(tmp_path: Path) -> None:
    all_failed_run(tmp_path / "failed")
    page = page_of(tmp_path)
    assert "default-src 'none'" in page
    assert len(rows_of(page)) == 1
    assert not re.search(r'(src|href)="https?:', page)


# --- what is kept ----------------------------------------------------------------------------------


def test_a_report_keeps_its_digest_and_the_index_reads_that(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run")
    write_report(path)
    sources, found = kept(path)
    assert found == json.loads(msgspec.json.encode(digest(path)))
    (path / DIGEST_FILE).write_text(json.dumps([sources, {**found, "headline": "as it was kept"}]))
    assert digest(path).headline == "as it was kept"
    assert "as it was kept" in page_of(tmp_path)


def oldest(path: Path) -> Path:
    """Of a run's records the one that was written first."""
    return min(
        (each for kind in ("cell", "start") for each in path.glob(f"{kind}s/*/{kind}.json")),
        key=lambda each: each.stat().st_mtime_ns,
    )


def touched(path: Path, by_ns: int = 1_000_000_000) -> None:
    later = path.stat().st_mtime_ns + by_ns
    os.utime(path, ns=(later, later))


def without_a_cell(path: Path) -> None:
    next(path.glob("cells/*/cell.json")).unlink()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: touched(next(path.glob("cells/*/cell.json"))),
        lambda path: touched(path / "run.json"),
        lambda path: touched(oldest(path), by_ns=1),
        lambda path: touched(next(path.glob("starts/*/start.json"))),
        without_a_cell,
        lambda path: (path / DIGEST_FILE).write_text((path / DIGEST_FILE).read_text()[:-20]),
        lambda path: (path / DIGEST_FILE).write_text(json.dumps([[0, *kept(path)[0][1:]], kept(path)[1]])),
        lambda path: (path / DIGEST_FILE).write_text('{"digest": []}'),
        lambda path: (path / DIGEST_FILE).write_bytes(b'["\xff"]'),
        lambda path: (path / DIGEST_FILE).write_bytes(b"[" * 100_000),
        lambda path: (path / DIGEST_FILE).unlink() or os.mkfifo(path / DIGEST_FILE),
    ],
)  # fmt: skip
def test_what_was_kept_is_made_anew_where_it_may_not_hold(tmp_path: Path, change) -> None:
    path = small_run(tmp_path / "run")
    digest(path)
    sources, found = kept(path)
    (path / DIGEST_FILE).write_text(json.dumps([sources, {**found, "headline": "stale"}]))
    change(path)
    assert digest(path).headline != "stale"
    assert kept(path)[1]["headline"] != "stale"


def test_a_directory_that_cannot_be_written_is_read_each_time(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run")
    (path / DIGEST_FILE).mkdir()  # also for one who may write everywhere
    assert digest(path).headline.startswith(
        "llama_cpp fp16. It is the only one measured at 1 user: output tokens/s "
    )
    assert not list(path.glob("*.part"))


def test_records_decide_and_not_what_else_is_in_a_run(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run")
    before = sources_of(path)
    write_report(path)
    (path / "cells" / "notes.txt").write_text("x")
    assert sources_of(path) == before


# --- the command -----------------------------------------------------------------------------------


def test_the_command_writes_the_page_and_prints_its_path(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    small_run(place.path / "results" / "one")
    for _ in range(2):  # its own page may be replaced
        done = told(place, "view")
        assert (done.returncode, done.stdout) == (0, "results/index.html\n")
    assert len(rows_of((place.path / "results" / "index.html").read_text())) == 1


def test_rows_are_printed_as_json_and_nothing_is_written(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    small_run(place.path / "runs" / "one")
    (place.path / "runs" / "bad").mkdir()
    (place.path / "runs" / "bad" / "run.json").write_text("{")
    good, bad = json.loads(told(place, "view", "runs", "--json").stdout)
    assert good["engines"] == ["llama_cpp"]
    assert (good["directory"], good["report"], good["measured"]) == ("runs/one", None, 1)
    assert bad["problem"].startswith("run.json: damaged")
    assert not (place.path / "runs" / "index.html").exists()


def test_a_page_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    small_run(place.path / "runs" / "one")
    (place.path / "runs" / "index.html").write_text("my page")
    done = told(place, "view", "runs")
    assert done.returncode == 2
    assert "runs/index.html: was not written by `bench view`; give --output FILE" in done.stderr
    assert told(place, "view", "runs", "--output", "all.html").stdout == "all.html\n"
    assert (place.path / "runs" / "index.html").read_text() == "my page"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "none: no such directory; give the directory that has the runs, such as results"),
        ("bare", "bare: no run is here or up to 4 directories below; `bench run` makes one"),
        ("file", "file: is a file; give the directory that has the runs, such as results"),
    ],
)
def test_a_directory_without_runs_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    place = made(tmp_path / "place")
    (place.path / "bare").mkdir()
    (place.path / "file").write_text("")
    done = told(place, "view", name)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{said}\n")


def test_a_digest_has_no_secret(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run")
    text = (path / "run.json").read_text().replace("Test CPU", "Bearer abcdefghij0123456789")
    (path / "run.json").write_text(text)
    assert "abcdefghij" not in digest(path).device
    assert open_run(path).record.environment["machine"]["cpu_model"] != "Test CPU"


def test_a_measurement_ends_with_its_answer_and_with_quiet_with_the_pages_path_alone(tmp_path, capsys):
    path = small_run(tmp_path / "run")
    [answer] = answers_of(open_run(path))
    for is_quiet in (False, True):
        show = Show(quiet=is_quiet)
        found = report_whatever_happened(path, show)
        assert found
        tell(found, 0, show, as_json=False)
        said = capsys.readouterr()
        assert said.out == f"{path}/report.html\n"
        assert (f"\n{answer.lead}. {answer.text}\n" in said.err) != is_quiet
        assert bool(said.err) != is_quiet
