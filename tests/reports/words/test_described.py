"""Recorded facts as a person reads them."""

import pytest
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.reports.data import open_run
from serving_bench.reports.words.described import device, fact, key_words


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("memory_read_bytes_per_s", 22_100_282_428.84, ("memory read bytes/s", "22,100,282,428.84")),
        ("rate_per_s", 2.0, ("rate/s", "2")),
        ("quiet_s", 6.0, ("quiet", "6 s")),
    ],
)
def test_a_unit_stands_at_the_value_and_a_rate_in_the_name(key, value, said):
    assert (key_words(key), fact(key, value)) == said


@pytest.mark.parametrize(("kind", "said"), [("host", "this processor"), ("device", "one device")])
def test_a_device_whose_name_is_not_recorded_is_told_by_its_kind(tmp_path, kind, said):
    changes = {"memory_kind": kind}
    path = repeated_run(
        tmp_path,
        [Made(deployment("llama_cpp", "fp16"))],
        repeats=1,
        start_changes=lambda start: changes,
        environment={},
    )
    assert device(open_run(path)) == said
