"""The best of the deployments that keep the SLO, and what is not told apart from it. Knows no run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.attainment import Judged
from reports.cells import Aggregate, Group
from reports.verdicts import STARTS_NEEDED, Verdict

State = Literal["kept", "unclear", "broken", "unknown"]


@dataclass(frozen=True)
class Standing:
    """Whether a deployment keeps the SLO at a load. `judged`: all its starts' windows together; None where
    they say nothing, and of a search, where each start has its own."""

    label: str
    state: State
    group: Group | None = None
    judged: Judged | None = None


@dataclass(frozen=True)
class Candidate:
    label: str
    value: Aggregate


@dataclass(frozen=True)
class Pick:
    """The best of a column by its value, from `metric`. `ties`: those that are not proven worse; `next`: the
    second by value, with the verdict on the best against it. `why`: why no verdict is given, so that the best
    is only that of these starts. `unclear`: those that would be better still, if they keep the SLO.
    `left_out`: those that keep it, or may, and have no value."""

    metric: str
    best: Candidate
    ties: tuple[str, ...] = ()
    next: Candidate | None = None
    verdict: Verdict | None = None
    why: str | None = None
    unclear: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether it is better than every other."""
        return self.why is None and not self.ties


# The best and the others by value -> those not proven worse, the verdict on the best against the second, and
# why there is none.
Decide = Callable[[Candidate, Sequence[Candidate]], tuple[tuple[str, ...], Verdict | None, str | None]]


def pick(
    metric: str,
    standings: Sequence[Standing],
    values: Mapping[str, Aggregate],
    better: Literal["higher", "lower"],
    decide: Decide,
) -> Pick | None:
    """Of those that keep the SLO, or if none does, of those that may; None where none of them has a value."""
    sign = -1.0 if better == "higher" else 1.0
    usable: list[tuple[float, State, Candidate]] = []
    for each in standings:
        value = values.get(each.label)
        if value is not None and value.mean is not None:
            usable.append((sign * value.mean, each.state, Candidate(each.label, value)))
    usable.sort(key=lambda found: found[0])
    kept, unclear = ([u for u in usable if u[1] == state] for state in ("kept", "unclear"))
    if not (kept or unclear):
        return None
    (rank, _, best), *rest = kept or unclear
    others = [candidate for *_, candidate in rest]
    ties, verdict, why = decide(best, others) if others else ((), None, None)
    valued = {candidate.label for *_, candidate in usable}
    candidates = [each.label for each in standings if each.state in ("kept", "unclear")]
    return Pick(
        metric,
        best,
        ties,
        others[0] if others else None,
        verdict,
        why,
        unclear=tuple(c.label for other, _, c in unclear if other < rank) if kept else (),
        left_out=tuple(label for label in candidates if label not in valued),
    )


def by_intervals(
    best: Candidate, others: Sequence[Candidate]
) -> tuple[tuple[str, ...], Verdict | None, str | None]:
    """Where no verdict was asked: told apart where the 95 % intervals of the means do not overlap, which is
    stricter than a test of their difference, and not corrected for how many there are."""
    if any(each.value.k < STARTS_NEEDED for each in (best, *others)):
        return (), None, f"an interval that says something needs {STARTS_NEEDED} starts of each or more"
    ties = [other.label for other in others if _overlap(best.value, other.value)]
    return tuple(ties), None, None


def _overlap(a: Aggregate, b: Aggregate) -> bool:
    if a.interval is None or b.interval is None:
        return True
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]
