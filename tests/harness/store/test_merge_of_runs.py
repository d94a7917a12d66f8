"""Repeats that were measured apart play the conversations that one run of all repeats plays."""

from pathlib import Path

import pandas as pd
import pytest
from bench_command import Place, bench, quick, side_by_side

from serving_bench.harness.store import checksums, store

WORDS = quick(
    "reference.ttft=1ms", "reference.itl=0ms", "load.concurrency=1,2", "load.conversations=3",
    "load.duration=60s", "load.warmup=0s", "repeats=2",
)  # fmt: skip
# What was asked, of which the reference server's answer is a function.
ASKED = ["conversation", "turn", "max_tokens", "sent_words", "output_text"]


def measured(*more: str):
    def story(place: Place) -> Path:
        done = bench(place, "run", *WORDS, *more, "--output", place.run_dir)
        assert done.returncode == 0, done.stderr
        return place.run_dir

    return story


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """One run of both repeats, and one that was merged of a run of each."""
    root = tmp_path_factory.mktemp("runs")
    stories = {
        "whole": measured(),
        "first": measured("--only-repeat", "1"),
        "second": measured("--only-repeat", "2"),
    }
    with side_by_side(root, stories) as begun:
        made = {name: story.result() for name, story in begun.items()}
    done = bench(Place(root), "merge", made["second"], made["first"], "--output", root / "merged")
    assert done.returncode == 0, done.stderr
    return {"whole": made["whole"], "merged": root / "merged"}


def requests(run: Path) -> dict[tuple[int, int | None], pd.DataFrame]:
    """The requests of each cell, by repeat and users."""
    return {
        (cell.repeat, cell.load.concurrency): store.read_requests(
            store.cell_dir(run, cell.number)
        ).to_pandas()
        for cell in store.read_cells(run)
    }


def test_the_merged_run_has_the_same_conversations_request_by_request(runs):
    whole, merged = (requests(runs[name]) for name in ("whole", "merged"))
    assert whole.keys() == merged.keys()
    assert len(whole) == 2 * 2
    for key, was in whole.items():
        now = merged[key]
        assert len(was) >= 6
        assert set(was["outcome"]) == set(now["outcome"]) == {"ok"}
        # Which of two users takes a conversation is decided by who is free first; what is in it is not.
        order = "sent_ns" if key[1] == 1 else ["conversation", "turn"]
        a, b = (each.sort_values(order)[ASKED].reset_index(drop=True) for each in (was, now))
        pd.testing.assert_frame_equal(a, b)
        for of_user in (each for frame in (was, now) for _, each in frame.groupby("user")):
            begun = of_user.sort_values("sent_ns")[["conversation", "turn"]]
            assert list(begun.itertuples(index=False)) == sorted(begun.itertuples(index=False))
    assert checksums.findings(runs["merged"]) == []


def test_each_repeat_has_conversations_of_its_own(runs):
    for found in map(requests, runs.values()):
        first, second = (found[repeat, 1] for repeat in (0, 1))
        assert not set(first["output_text"]) & set(second["output_text"])
