"""Gaps counted in bins, and what a cell's chunks come to, against gaps worked out by hand and numpy's own."""

import dataclasses

import numpy as np
import pytest
from make_run import MS, S, failed_row, gaps_of, one_cell_run, row, summary

from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.data import tables
from serving_bench.reports.data.tables import BINS, EDGES_S, bins_of, chunk_totals, quantile, together
from serving_bench.reports.measures.values import measured_of, values_of

WINDOW = summary(100 * S)  # from 102 to 110 s


def chunked(number: int, sent_ns: int, gaps_ms, turn: int = 0, **changes):
    """A request whose first chunk comes after 100 ms, and the others after these gaps."""
    at_ns = sent_ns + 100 * MS + np.concatenate([[0], np.cumsum(gaps_ms)]) * MS
    chunks = tuple(int(each) for each in at_ns)
    return row(number, sent_ns, chunk_ns=chunks, end_ns=chunks[-1] + MS, turn=turn, **changes)


def drawn(seed: int, count: int):
    """Requests with gaps from microseconds to seconds, the last ones of which outlast the window."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        gaps = rng.lognormal(2, 2, int(rng.integers(0, 40)))
        rows.append(chunked(k, 101 * S + k * 9 * S // count, gaps, turn=k % 3))
    return [*rows, failed_row(900, 103 * S), chunked(901, 104 * S, [5, 5], outcome="cancelled")]


def test_bins_are_about_one_percent_wide_from_ten_microseconds_to_a_thousand_seconds():
    widths = EDGES_S[2:] / EDGES_S[1:-1] - 1
    assert len(EDGES_S) == BINS + 1
    assert (widths.min(), widths.max()) == (pytest.approx(1 / 127, rel=1e-3), pytest.approx(1 / 64, rel=1e-3))
    assert EDGES_S[1] < 10e-6
    assert EDGES_S[-1] > 1000


def test_a_gap_falls_between_the_edges_of_its_bin():
    rng = np.random.default_rng(1)
    gaps_ns = np.exp(rng.uniform(np.log(1e4), np.log(1e12), 20_000)).astype(np.int64)
    bins = bins_of(gaps_ns)
    assert (EDGES_S[bins] <= gaps_ns / 1e9).all()
    assert (gaps_ns / 1e9 < EDGES_S[bins + 1]).all()


def test_gaps_beyond_the_edges_are_in_the_first_and_the_last_bin():
    gaps_ns = np.array([0, 1, 8191, 8192, 1 << 40, 1 << 50])
    assert bins_of(gaps_ns).tolist() == [0, 0, 0, 1, BINS - 1, BINS - 1]


def test_counts_are_of_the_windows_ok_requests(tmp_path):
    rows = [
        chunked(0, 101 * S, [10, 10]),  # before the window
        chunked(1, 102 * S, [10, 20, 20]),
        chunked(2, 103 * S, [40], turn=1),
        chunked(3, 109 * S, [40, 2000], turn=1),  # the last gap ends after the window
        chunked(4, 105 * S, [], turn=2),
        chunked(5, 105 * S, [7, 7], outcome="cancelled"),
        failed_row(6, 106 * S),
    ]
    run = open_run(one_cell_run(tmp_path, rows, WINDOW).path)
    found = measured_of(run)[0].gaps
    at_10, at_20, at_40, at_2000 = bins_of(np.array([10, 20, 40, 2000]) * MS).tolist()
    assert (found.n, found.requests) == (6, 3)
    counted = {int(k): int(found.counts[k]) for k in np.flatnonzero(found.counts)}
    assert counted == {at_10: 1, at_20: 2, at_40: 2, at_2000: 1}


def test_counts_of_several_cells_add_up(tmp_path):
    a = measured_of(open_run(one_cell_run(tmp_path / "a", drawn(1, 60), WINDOW).path))[0].gaps
    b = measured_of(open_run(one_cell_run(tmp_path / "b", [chunked(0, 103 * S, [10, 9])], WINDOW).path))[
        0
    ].gaps
    both = together([a, b])
    assert (both.n, both.requests) == (a.n + b.n, a.requests + 1)
    assert both.counts.tolist() == (a.counts + b.counts).tolist()
    assert together([]).n == 0


@pytest.mark.parametrize("share", [0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1])
def test_quantiles_of_counts_are_within_a_bin_of_numpys(share):
    gaps_ns = (np.random.default_rng(3).lognormal(3, 1, 5000) * MS).astype(np.int64)
    true_s = float(np.quantile(gaps_ns / 1e9, share))
    fine = np.bincount(bins_of(gaps_ns), minlength=BINS)
    assert quantile(fine, share) == pytest.approx(true_s, rel=1 / 64)


def test_quantile_of_nothing_is_none_and_of_one_gap_lies_in_its_bin():
    assert quantile(np.zeros(BINS, dtype=int), 0.5) is None
    one = np.bincount(bins_of(np.array([20 * MS])), minlength=BINS)
    assert quantile(one, 0.5) == pytest.approx(0.02, rel=1 / 64)


# --- one reading of the chunks ---------------------------------------------------------------------


def whole(batches):
    """All batches as one."""
    parts = list(batches)
    before = np.cumsum([0, *(len(part.tokens) for part in parts)])
    of = np.concatenate([part.of + first for part, first in zip(parts, before, strict=False)])
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for name in ("at_ns", "tokens", "is_ok", "in_window", "spans_ns")
    }
    return tables.Chunks(of=of, **joined)


def split(chunks: tables.Chunks, size: int):
    """The same requests, so many at a time."""
    for first in range(0, len(chunks.tokens), size):
        is_in = (chunks.of >= first) & (chunks.of < first + size)
        yield tables.Chunks(
            chunks.at_ns[is_in],
            chunks.of[is_in] - first,
            *(
                getattr(chunks, name)[..., first : first + size]
                for name in ("tokens", "is_ok", "in_window", "spans_ns")
            ),
        )


def same(a, b) -> None:
    for part in dataclasses.fields(a):
        first, second = getattr(a, part.name), getattr(b, part.name)
        if dataclasses.is_dataclass(first):
            same(first, second)
        else:
            assert first == pytest.approx(second), part.name


@pytest.mark.parametrize("size", [1, 7, 50])
def test_batches_come_to_what_the_whole_comes_to(tmp_path, size):
    made = one_cell_run(tmp_path, drawn(2, 120), WINDOW)
    chunks = whole(tables.chunk_batches(made.path, 0))
    window = (WINDOW.window_start_ns, WINDOW.window_end_ns)
    levels = (1, 50, 99, 100)
    found = chunk_totals(split(chunks, size), window, levels)
    same(found, chunk_totals([chunks], window, levels))
    assert found.gaps.n > 1000


def test_a_table_of_several_row_groups_is_read_whole(tmp_path):
    count = 5000  # row groups have 2,048 requests
    rows = [chunked(k, 102 * S + k * MS, [10], turn=k % 2) for k in range(count)]
    made = one_cell_run(tmp_path, rows, WINDOW)
    assert len(list(tables.chunk_batches(made.path, 0))) == 3
    assert measured_of(open_run(made.path))[0].gaps.requests == count


def test_percentiles_are_those_of_all_gaps_exactly(tmp_path):
    made = one_cell_run(tmp_path, drawn(4, 200), WINDOW)
    run = open_run(made.path)
    each = gaps_of(made.path)
    gaps = np.concatenate(each)
    assert len(gaps) > 1000
    assert gaps.max() > 4.3  # some too long for four bytes
    for level in (50, 90, 95, 99):
        value = values_of(run)[0][f"itl_s.p{level}"]
        assert value.value == pytest.approx(float(np.percentile(gaps, level)), rel=1e-12)
        assert (value.n, value.requests) == (len(gaps), len(each))


def test_an_absent_table_has_no_batches(tmp_path):
    made = one_cell_run(tmp_path, [], WINDOW)
    (store.cell_dir(made.path, 0) / "requests.parquet").unlink()
    assert list(tables.chunk_batches(made.path, 0)) == []
    assert chunk_totals([], None).gaps.n == 0
