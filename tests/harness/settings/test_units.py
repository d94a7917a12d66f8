"""Durations, sizes and shares as a person writes them."""

import pytest

from serving_bench.harness.settings.units import duration_s, rate_per_s, share, size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("0", 0), ("1e-3s", 0.001)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 << 30),
        ("512MB", 512_000_000),
        ("10B", 10),
        ("0", 0),
        ("2097152", 2 << 20),
        ("24gib", 24 << 30),
        ("24GIB", 24 << 30),
        ("1.5 gb", 1_500_000_000),
        ("24G", None),  # GB to some, GiB to others
        ("24Gb", None),  # bits
        ("24Gib", None),
        ("24b", None),
        ("1 kB", None),
        ("24 apples", None),
    ],
)
def test_sizes_are_bytes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="a size such as"):
            size_bytes(text)
    else:
        assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["24", "1.5e3", "1048575"])
def test_a_size_whose_unit_was_forgotten_says_how_to_write_it(text: str) -> None:
    number = round(float(text))
    with pytest.raises(ValueError, match=f"^{number} bytes\\? write {number}GiB or {number}MiB$"):
        size_bytes(text)


def test_what_is_beyond_every_number_is_refused() -> None:
    for read in (size_bytes, duration_s, share, rate_per_s):
        with pytest.raises(ValueError, match="must be"):
            read("1e400")


def test_shares_take_percent() -> None:
    assert share("5%") == pytest.approx(0.05)


@pytest.mark.parametrize("text", ["5", "1.5", "1e-3", "5."])
def test_a_duration_without_a_unit_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=f"^needs a unit; write {text}s, or {text}ms for milliseconds$"):
        duration_s(text)


@pytest.mark.parametrize("text", ["", "s", "20 sec", "nan", "inf", "1,5s", "20s20s"])
def test_what_is_no_duration_says_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="a duration such as 20s"):
        duration_s(text)


@pytest.mark.parametrize(("text", "rate"), [("2", 2), ("2.5/s", 2.5), ("120/min", 2), ("3600/h", 1)])
def test_rates_are_per_second(text: str, rate: float) -> None:
    assert rate_per_s(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["2 per second", "2/d", "2/", "/s", "2s"])
def test_what_is_no_rate_says_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"a rate such as 2\.5/s or 120/min"):
        rate_per_s(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (412 << 20, "412 MiB"),
        (10 * 2**30 - 1, "10,240 MiB"),
        (10 << 30, "10.0 GiB"),
        (39_558 << 20, "38.6 GiB"),
    ],
)
def test_large_sizes_are_read_in_gib(size: int, text: str) -> None:
    assert size_text(size) == text
