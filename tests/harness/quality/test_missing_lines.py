"""What a run says of the quality that it did not measure."""

from serving_bench.harness.contracts import QualityRecord, quoted
from serving_bench.harness.run.quality import missing_lines


def test_ways_that_share_a_reason_are_told_in_one_line():
    late = quoted("no answer in time")
    missing = {"text": quoted("none is told"), "again": late, "load": late}
    assert missing_lines(QualityRecord("0" * 64, 0, 1.0, missing=missing)) == [
        "quality by given texts not measured: none is told",
        "quality by the same chats again, the same chats under load not measured: no answer in time",
    ]
