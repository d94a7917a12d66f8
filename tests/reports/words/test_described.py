"""Recorded facts as a person reads them."""

import pytest

from reports.words.described import fact, key_words


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
