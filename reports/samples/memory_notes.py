"""Why values are missing among a start's samples, by its record."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.store.store import StartRecord

# A record of before `memory_notes` has all in one sentence: "host: pss: why; device: device 0 energy: why".
_BETWEEN = re.compile(r"; (?=(?:host|device|server): )")
_PART = re.compile(r"(host|device|server): (?:(?:device )?(\w[\w ]*): )?(.*)", re.DOTALL)


def notes_of(record: StartRecord) -> dict[str, str]:
    """Reasons by what is missing: a sampler and its field, as "device 0 energy"."""
    if record.memory_notes or not record.memory_note:
        return dict(record.memory_notes)
    found = {}
    for part in _BETWEEN.split(record.memory_note):
        match = _PART.fullmatch(part)
        if match is None:
            found["memory"] = part
        else:
            sampler, field, reason = match.groups()
            found[f"{sampler} {field or 'sampler'}"] = reason
    return found


def shared_reasons(starts: Sequence[StartRecord]) -> list[tuple[list[str], str, list[StartRecord]]]:
    """What is missing, why, and of which of the starts, in their order: equal ones once. What a server's page
    lacks is left out (reports/sections/serving.py says it)."""
    starts_of: dict[tuple[str, str], list[StartRecord]] = {}
    for record in starts:
        for what, why in notes_of(record).items():
            if not what.startswith("server "):
                starts_of.setdefault((what, why), []).append(record)
    found: dict[tuple[str, tuple[str, ...]], tuple[list[str], str, list[StartRecord]]] = {}
    for (what, why), records in starts_of.items():
        key = (why, tuple(record.name for record in records))
        found.setdefault(key, ([], why, records))[0].append(what)
    return list(found.values())
