"""benchmarks/live.py: what being watched costs stays far below what it may."""

from benchmark_modules import modules_of


def test_being_watched_costs_little() -> None:
    found = modules_of("live")["live"].measured()
    assert 0 < found["request_us"] < 10, "0.13 us on a quiet core; it is paid with each request"
    assert 0 < found["second_us"] < 1000, "0.14 ms; it is paid once a second, beside the streams"
    assert found["draw_us"] > 0
