"""Anatomies of a deployment's starts together, and beside what `bench fit` expected of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports.measures.anatomy import KV_CACHE, WEIGHTS, Anatomy, Part, Source


def alike(found: Sequence[Anatomy]) -> tuple[list[Anatomy], list[Anatomy]]:
    """Of a deployment's starts, those on which the same cells were measured, and the others. Those with the
    most cells that count, then the most starts; a mean over others would be of different loads."""
    groups: dict[frozenset[tuple[str, str, bool]], list[Anatomy]] = {}
    for each in found:
        groups.setdefault(each.measured, []).append(each)
    kept = max(
        groups, key=lambda key: (sum(counts for *_, counts in key), len(groups[key]), -len(key)), default=None
    )
    return [a for a in found if a.measured == kept], [a for a in found if a.measured != kept]


def mean(values: Sequence[float | None]) -> float | None:
    """Of values that are all known; None otherwise."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def mean_part(found: Sequence[Anatomy], name: str) -> Part | None:
    """A part over the starts of a deployment: means, so that they still add up. None where no start has it;
    a start without it has none of it."""
    parts = [each.parts.get(name) for each in found]
    if not any(parts):
        return None
    known = [part or Part(0.0, {}) for part in parts]
    names = dict.fromkeys(source for part in known for source in part.sources)
    count = len(known)
    return Part(
        sum(part.size_bytes for part in known) / count,
        {name: sum(part.sources.get(name, 0.0) for part in known) / count for name in names},
        sum(part.cut_bytes for part in known) / count,
    )


def mean_size(found: Sequence[Anatomy], name: str) -> float:
    """Bytes of a part; 0 where no start has it."""
    part = mean_part(found, name)
    return part.size_bytes if part else 0.0


def mean_total(found: Sequence[Anatomy]) -> float:
    return sum(each.total_bytes for each in found) / len(found)


@dataclass(frozen=True)
class Expected:
    """What `bench fit` reckons beside what a deployment's starts came to, in bytes (means)."""

    part: Literal["weights", "KV cache", "total"]
    expected_bytes: float
    measured_bytes: float
    source: str

    @property
    def error_share(self) -> float:
        return self.expected_bytes / self.measured_bytes - 1.0


def expectations(found: Sequence[Anatomy]) -> list[Expected]:
    """Weights, KV cache and total of a deployment, where they were both reckoned and measured. The total on a
    host is what was touched."""
    made: list[Expected] = []
    expected = found[0].record.memory_expected
    rows: tuple[tuple[Literal["weights", "KV cache"], str], ...] = (
        ("weights", WEIGHTS),
        ("KV cache", KV_CACHE),
    )
    for title, name in rows:
        part = mean_part(found, name)
        # What the model's shape gives is no measurement of it.
        if name not in expected or part is None or "reckoned" in part.sources or not part.size_bytes:
            continue
        source: Source = "said" if "said" in part.sources else "measured step"
        made.append(Expected(title, expected[name], part.size_bytes + part.cut_bytes, source))
    if {WEIGHTS, KV_CACHE, "overhead"} <= expected.keys():
        whole = expected[WEIGHTS] + expected[KV_CACHE] + expected["overhead"]
        made.append(Expected("total", whole, mean_total(found), found[0].how))
    return made
