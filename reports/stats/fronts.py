"""Which deployments no other is proven to beat in two values at once, and who beats the others. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports.stats.family import Verdict

# The verdict on the first of two labels against the second; None where it was not asked.
Told = Callable[[str, str], Verdict | None]
_NO_WORSE = ("better", "same")


@dataclass(frozen=True)
class Front:
    """`beaten`: by whom, of each that is proven worse in one value and not proven better in the other.
    `steps`: of those that are not, the ones with more for each more that they cost, from the cheapest on.
    `untold`: neither beaten nor a step, so that nothing is proven of them."""

    beaten: Mapping[str, tuple[str, ...]]
    steps: tuple[str, ...]
    untold: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether each is either a step or beaten."""
        return not self.untold


def front_of(gains: Mapping[str, float], costs: Mapping[str, float], gain: Told, cost: Told) -> Front:
    """Of the labels that both have: more gain and less cost is better; `gain` and `cost` tell whether the
    first of two is better, the same, or worse in one of them."""
    labels = [label for label in gains if label in costs]
    beaten = {label: tuple(other for other in labels if _beats(other, label, gain, cost)) for label in labels}
    beaten = {label: others for label, others in beaten.items() if others}
    left = [label for label in labels if label not in beaten]
    steps = _steps(sorted(left, key=lambda label: (costs[label], -gains[label])), gains)
    return Front(beaten, tuple(steps), tuple(label for label in left if label not in steps))


def _beats(a: str, b: str, gain: Told, cost: Told) -> bool:
    """Better in one and better or the same in the other."""
    if a == b:
        return False
    kinds = [verdict.kind if (verdict := told(a, b)) else "none" for told in (gain, cost)]
    return "better" in kinds and all(kind in _NO_WORSE for kind in kinds)


def _steps(ordered: Sequence[str], gains: Mapping[str, float]) -> list[str]:
    steps: list[str] = []
    for label in ordered:
        if not steps or gains[label] > gains[steps[-1]]:
            steps.append(label)
    return steps
