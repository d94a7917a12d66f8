"""Charts as pictures: whole and readable alone, in a real Chromium; and what is said where there is none."""

import os
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from repeated_run import repeated_run, three
from waiting import number_in, wait_until

from serving_bench.harness.errors import BenchError, MissingError
from serving_bench.reports import open_run
from serving_bench.reports.outputs.pictures import VARIABLE, chosen, pictures, program

SVG = "{http://www.w3.org/2000/svg}"
TTFT, FRONT = "ttft_s-p50-0", "frontier-ttft-s-0"


@pytest.fixture(scope="module")
def chromium():
    try:
        return program()
    except MissingError as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(repeated_run(tmp_path_factory.mktemp("three"), three(), repeats=3))


def drawn(run, *names: str, format_: str) -> list[bytes]:
    charts = [chart for name in names for chart in chosen(run, name)]
    return list(pictures(run, charts, format_).values())


@pytest.fixture(scope="module")
def svgs(chromium, run) -> list[bytes]:
    return drawn(run, TTFT, FRONT, format_="svg")


def words_of(svg: bytes) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.browser
@pytest.mark.long
def test_an_svg_has_title_names_and_note_as_text_and_no_script(svgs, run):
    for svg, name in zip(svgs, (TTFT, FRONT), strict=True):
        root, [chart] = ElementTree.fromstring(svg), chosen(run, name)
        said = " ".join(words_of(svg))
        assert chart.title in said
        assert "run r1, 2026-01-02" in said
        assert all(label in said for label in ("llama_cpp gguf-q8_0", "vllm fp16"))
        assert not list(root.iter(f"{SVG}script"))
        assert not [key for each in root.iter() for key in each.attrib if key.startswith("on")]
        links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith(("href", "src"))]
        assert all(link.startswith(("#", "data:")) for link in links), "nothing is asked for from elsewhere"
        assert chart.note in said
        assert (root.get("width"), root.find(f"{SVG}title").text) == ("900", chart.title)


@pytest.mark.browser
@pytest.mark.long
def test_a_png_has_twice_the_size_of_the_svg(chromium, svgs, run):
    [png] = drawn(run, TTFT, format_="png")
    svg = ElementTree.fromstring(svgs[0])
    assert size_of(png) == (1800, 2 * int(svg.get("height")))


@pytest.mark.browser
@pytest.mark.long
def test_hostile_names_are_words_in_the_picture_which_has_a_light_ground(chromium, full):
    [svg] = drawn(full, TTFT, format_="svg")
    root = ElementTree.fromstring(svg)
    tags = {each.tag.rpartition("}")[2] for each in root.iter()}
    assert tags.isdisjoint(("script", "img", "foreignObject"))
    assert "<script>document.title='pwned'</script>" in "".join(words_of(svg))
    assert root.find(f"{SVG}rect").get("fill") == "#fff"


@pytest.mark.browser
@pytest.mark.long
def test_nothing_is_left_of_chromium(chromium, run, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    drawn(run, TTFT, format_="svg")
    running = (" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))
    assert not [line for line in running if str(tmp_path) in line]
    assert list(tmp_path.iterdir()) == []


# --- without one ----------------------------------------------------------------------------------


def test_without_a_chromium_it_says_what_to_install(monkeypatch, run):
    monkeypatch.setenv("PATH", "/absent")
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingError, match=r"need an installed Chromium, Chrome or Edge on PATH") as caught:
        drawn(run, TTFT, format_="png")
    assert caught.value.exit_code == 2
    monkeypatch.setenv(VARIABLE, "/absent/chromium")
    with pytest.raises(MissingError, match=r"BENCH_CHROMIUM=/absent/chromium: no such program"):
        program()


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def test_a_chromium_that_ends_at_once_is_one_line(monkeypatch, tmp_path, run):
    monkeypatch.setenv(VARIABLE, script(tmp_path / "chromium", "exit 1"))
    said = r"chromium ended before it had drawn; give the path of another Chromium in BENCH_CHROMIUM"
    with pytest.raises(MissingError, match=said) as caught:
        drawn(run, TTFT, format_="png")
    assert caught.value.exit_code == 2


def test_a_chromium_that_does_not_answer_is_ended_with_its_children(monkeypatch, tmp_path, run):
    sleep = f"{sys.executable} -c 'import time; time.sleep(600)' &"
    monkeypatch.setenv(
        VARIABLE, script(tmp_path / "chromium", sleep, f"echo $! > {tmp_path / 'child'}", "wait")
    )
    monkeypatch.setattr("serving_bench.reports.outputs.pictures._BEGIN_S", -3.5)
    with pytest.raises(BenchError, match=r"chromium did not answer in time"):
        drawn(run, TTFT, format_="png")
    child = number_in(tmp_path / "child")
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
