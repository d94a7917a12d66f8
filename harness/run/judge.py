"""What a cell's requests make of it: failed, or suspect, with the reason. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from harness.contracts import Load, LoadSummary, Validity
from harness.store.request_table import Tally
from harness.store.store import CellRecord


def judged(record: CellRecord, tally: Tally) -> CellRecord:
    """Return the record with what its requests say of it.

    A cell in whose window all requests failed is failed, and so is one without a good request at all. One
    that lost requests or conversations is suspect, one in whose window none was sent, and one on a machine
    that was not fit.
    """
    if record.status != "completed" or record.summary is None:
        return record
    if error := _failure(record.load, record.summary, tally):
        return replace(record, status="failed", error=error)
    spans = {"before": "cell", "during": "window"}
    found = [f"{each.text} ({each.when} the {spans[each.when]})" for each in record.guard]
    reasons = [*_doubts(record.summary, tally), *found]
    if not reasons:
        return record
    is_invalid = any(finding.validity == "invalid" for finding in record.guard)
    validity: Validity = "invalid" if is_invalid else "suspect"
    return replace(record, validity=validity, reasons=(*record.reasons, *reasons))


def _failure(load: Load, summary: LoadSummary, tally: Tally) -> str | None:
    if summary.ended_by == "interrupted":
        return "the load process was ended by a signal"
    if summary.ended_by == "failures":
        return _stopped(load, tally)
    if tally.sent and tally.failed == tally.sent:
        return f"no request in the window succeeded; {_commonest(tally.window_messages)}"
    return None if tally.ok else _nothing_sent(summary, tally)


def _doubts(summary: LoadSummary, tally: Tally) -> Iterator[str]:
    """Yield the reasons to doubt a cell that did not fail."""
    if tally.failed:
        yield f"{tally.failed} of {tally.sent} requests in the window failed"
    if count := summary.left_out:
        were = "conversation was" if count == 1 else "conversations were"
        yield f"{count} {were} due before the window's end and never began; less came than was asked for"
    if count := summary.cut_conversations:
        were = "conversation that began was" if count == 1 else "conversations that began were"
        left = "1 turn was" if summary.cut_turns == 1 else f"{summary.cut_turns} turns were"
        yield f"{count} {were} not finished within load.grace: {left} cut"
    if not tally.sent:
        yield _nothing_sent(summary, tally)


def _nothing_sent(summary: LoadSummary, tally: Tally) -> str:
    """Say of a window that no request was sent in it, and why."""
    window_s = (summary.window_end_ns - summary.window_start_ns) / 1e9
    why = "none was due"
    if summary.requests:
        why = "those begun before it outlasted it" if tally.ok else f"{_commonest(tally.messages)} before it"
    window = f"no request was sent in the window of {window_s:g} s"
    return f"{window}: {why}; give a longer load.duration, such as 60s"


def _stopped(load: Load, tally: Tally) -> str:
    most = f"{100 * (load.max_failed_share or 0.0):g}%"
    # Each load process judges its own last requests; those of the whole cell may say something else.
    text = (
        f"stopped: {sum(has_failed for _, has_failed in tally.last_ended)} of the last "
        f"{len(tally.last_ended)} requests failed (load.max_failed={most})"
        if load.workers == 1
        else f"stopped: more than {most} of the last requests of one of {load.workers} load workers failed "
        f"(load.max_failed={most})"
    )
    return f"{text}; commonest: {_commonest(tally.messages)}" if tally.messages else text


def _commonest(messages: Mapping[str, int]) -> str:
    return max(messages, key=lambda message: messages[message])
