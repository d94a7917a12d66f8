"""What of a reserved KV cache would hold no token, against numbers worked out by hand."""

import numpy as np
import pytest

from serving_bench.reports.measures.metrics import Value
from serving_bench.reports.measures.traffic.kv_waste import kv_waste


def requests(*rows: tuple[float, ...]) -> dict[str, np.ndarray]:
    columns = ["first_content_ns", "last_content_ns", "input_tokens", "output_tokens"]
    return dict(zip(columns, np.array(rows, dtype=float).reshape(-1, 4).T, strict=True))


def test_one_request() -> None:
    # It holds 15, 16, 17 and 18 tokens: 66 of 4 x 100 in a slot, of 16 + 16 + 32 + 32 in blocks.
    found = kv_waste(requests((0, 40, 14, 4)), 100)
    assert found["kv_waste_contiguous_share"] == Value(pytest.approx(1 - 66 / 400), 1)
    assert found["kv_waste_paged_share"] == Value(pytest.approx(1 - 66 / 96), 1)


def test_a_request_counts_by_the_time_that_its_answer_takes() -> None:
    # Means of 10.5 and 41 tokens, in 16 and in 48; the second takes three times as long.
    found = kv_waste(requests((0, 10, 9, 2), (100, 130, 40, 1)), 64)
    assert found["kv_waste_contiguous_share"].value == pytest.approx(1 - (10.5 + 3 * 41) / (4 * 64))
    assert found["kv_waste_paged_share"].value == pytest.approx(1 - (10.5 + 3 * 41) / (16 + 3 * 48))


def test_what_is_not_known_is_left_out() -> None:
    rows = requests((0, 40, 14, 4), (0, 40, np.nan, 4), (0, 40, 14, 0))
    assert kv_waste(rows, 100) == kv_waste(requests((0, 40, 14, 4)), 100)
    assert kv_waste(rows, None)["kv_waste_contiguous_share"] == Value(None, 1)
    assert kv_waste(rows, None)["kv_waste_paged_share"].value is not None
    assert kv_waste(requests(), 100)["kv_waste_paged_share"] == Value(None, 0)
