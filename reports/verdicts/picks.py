"""The best of the deployments that keep the SLO, and what is not told apart from it. Knows no run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.data.cells import Group
from reports.measures.over_starts import Aggregate
from reports.measures.slo import Judged
from reports.stats.family import Told, Verdict

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
    second by value, with the verdict on the best against it. `same`: of the ties those that are within the
    margin of it, by their whole interval. `why`: why no verdict is given, so that the best
    is only that of these starts. `unclear`: those that are proven better still, if they keep the SLO.
    `left_out`: those that keep it, or may, and have no value."""

    metric: str
    best: Candidate
    ties: tuple[str, ...] = ()
    next: Candidate | None = None
    verdict: Verdict | None = None
    why: str | None = None
    unclear: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    same: tuple[str, ...] = ()

    @property
    def is_proven(self) -> bool:
        """Whether it is better than every other."""
        return self.why is None and not self.ties


def pick(
    metric: str,
    standings: Sequence[Standing],
    values: Mapping[str, Aggregate],
    better: Literal["higher", "lower"],
    told: Told,
) -> Pick | None:
    """Of those that keep the SLO, or if none does, of those that may; None where none of them has a value."""
    sign = -1.0 if better == "higher" else 1.0
    usable: list[tuple[float, State, Candidate]] = []
    for each in standings:
        value = values.get(each.label)
        if value is not None and value.mean is not None:
            usable.append((sign * value.mean, each.state, Candidate(each.label, value)))
    usable.sort(key=lambda found: found[0])
    kept, unclear = ([c for _, state, c in usable if state == wanted] for wanted in ("kept", "unclear"))
    if not (kept or unclear):
        return None
    best, *others = kept or unclear
    verdicts = [told(best.label, other.label) for other in others]
    valued = {candidate.label for *_, candidate in usable}
    candidates = [each.label for each in standings if each.state in ("kept", "unclear")]
    why = _why_none(verdicts)
    return Pick(
        metric,
        best,
        () if why else tuple(o.label for o, v in zip(others, verdicts, strict=True) if not _is_better(v)),
        others[0] if others else None,
        verdicts[0] if verdicts else None,
        why,
        unclear=tuple(c.label for c in unclear if _is_better(told(c.label, best.label))) if kept else (),
        left_out=tuple(label for label in candidates if label not in valued),
        same=tuple(o.label for o, v in zip(others, verdicts, strict=True) if v and v.kind == "same"),
    )


def _is_better(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.kind == "better"


def _why_none(verdicts: Sequence[Verdict | None]) -> str | None:
    """Why there is no verdict on any of the pairs; None where there is one, and where there are no pairs."""
    if any(verdict is not None and verdict.kind != "none" for verdict in verdicts) or not verdicts:
        return None
    return next((verdict.why for verdict in verdicts if verdict and verdict.why), "they were not compared")
