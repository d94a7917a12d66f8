"""Why values are missing among a start's samples, by its record."""

from collections.abc import Sequence

from harness.store.store import StartRecord


def shared_reasons(starts: Sequence[StartRecord]) -> list[tuple[list[str], str, list[StartRecord]]]:
    """What is missing, why, and of which of the starts, in their order: equal ones once. What a server's page
    lacks is left out (reports/page/sections/serving.py says it)."""
    starts_of: dict[tuple[str, str], list[StartRecord]] = {}
    for record in starts:
        for what, why in record.memory_notes.items():
            if not what.startswith("server "):
                starts_of.setdefault((what, why), []).append(record)
    found: dict[tuple[str, tuple[str, ...]], tuple[list[str], str, list[StartRecord]]] = {}
    for (what, why), records in starts_of.items():
        key = (why, tuple(record.name for record in records))
        found.setdefault(key, ([], why, records))[0].append(what)
    return list(found.values())
