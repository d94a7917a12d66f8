"""What a cell's requests make of it: failed, or suspect, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.contracts import GuardFinding, LoadSummary, Validity
from harness.store.store import CellRecord
from harness.store.tally import Tally


def judged(record: CellRecord, tally: Tally) -> CellRecord:
    """Return the record with what its requests say of it.

    A cell in whose window all requests failed is failed, and so is one without a good request at all. One
    that lost requests or conversations is suspect, one in whose window none was sent, and one on a machine
    that was not fit.
    """
    if record.status != "completed" or record.summary is None:
        return record
    if error := _failure(record, tally):
        return replace(record, status="failed", error=error)
    reasons = [*_failed_requests(tally), *_left_out(record.summary), *_cut(record.summary)]
    if not tally.sent:
        reasons.append(_nothing_sent(record, tally))
    reasons += [_unfit(finding) for finding in record.guard]
    if not reasons:
        return record
    is_invalid = any(finding.validity == "invalid" for finding in record.guard)
    validity: Validity = "invalid" if is_invalid else "suspect"
    return replace(record, validity=validity, reasons=(*record.reasons, *reasons))


def _failure(record: CellRecord, tally: Tally) -> str | None:
    assert record.summary is not None
    if record.summary.ended_by == "interrupted":
        return "the load process was ended by a signal"
    if record.summary.ended_by == "failures":
        return _stopped(record, tally)
    if tally.sent and tally.failed == tally.sent:
        return f"no request in the window succeeded; {commonest(tally.window_messages)}"
    if not tally.ok:
        return _nothing_sent(record, tally)
    return None


def _nothing_sent(record: CellRecord, tally: Tally) -> str:
    """Say of a window that no request was sent in it, and why."""
    assert record.summary is not None
    window_s = (record.summary.window_end_ns - record.summary.window_start_ns) / 1e9
    why = "none was due"
    if record.summary.requests:
        why = "those begun before it outlasted it" if tally.ok else f"{commonest(tally.messages)} before it"
    window = f"no request was sent in the window of {window_s:g} s"
    return f"{window}: {why}; give a longer load.duration, such as 60s"


def _stopped(record: CellRecord, tally: Tally) -> str:
    most, workers = f"{100 * (record.load.max_failed_share or 0.0):g}%", record.load.workers
    # Each load process judges its own last requests; those of the whole cell may say something else.
    text = (
        f"stopped: {tally.last_failed} of the last {tally.last} requests failed (load.max_failed={most})"
        if workers == 1
        else f"stopped: more than {most} of the last requests of one of {workers} load workers failed "
        f"(load.max_failed={most})"
    )
    return f"{text}; commonest: {commonest(tally.messages)}" if tally.messages else text


def commonest(messages: Mapping[str, int]) -> str:
    return max(messages, key=lambda message: messages[message])


def _failed_requests(tally: Tally) -> list[str]:
    return [f"{tally.failed} of {tally.sent} requests in the window failed"] if tally.failed else []


def _left_out(summary: LoadSummary) -> list[str]:
    count = summary.left_out
    were = "conversation was" if count == 1 else "conversations were"
    text = f"{count} {were} due before the window's end and never began; less came than was asked for"
    return [text] if count else []


def _cut(summary: LoadSummary) -> list[str]:
    count, turns = summary.cut_conversations, summary.cut_turns
    were = "conversation that began was" if count == 1 else "conversations that began were"
    left = "1 turn was" if turns == 1 else f"{turns} turns were"
    return [f"{count} {were} not finished within load.grace: {left} cut"] if count else []


def _unfit(finding: GuardFinding) -> str:
    return f"{finding.text} ({finding.when} the {'window' if finding.when == 'during' else 'cell'})"
