"""Whether the machine was fit to measure. Standard library only; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.contracts.words import Validity

# What an unfit machine means. mark: it is waited for, then measured all the same, and the cell is suspect.
# strict: the cell is refused, or invalid where it became unfit in the window. off: nobody looks.
GuardMode = Literal["strict", "mark", "off"]


@dataclass(frozen=True)
class GuardTerms:
    """`wait_s`: how long an unfit machine is waited for, before a start and before a cell."""

    wait_s: float = 30.0


@dataclass(frozen=True)
class GuardFinding:
    """What made the machine unfit for a cell.

    `kind`: one word for the cause (foreign_process, memory_not_back, throttled ...). `text`: a clause with
    the numbers. `when`: it was seen before the cell, or during its window. `validity`: what it makes of it.
    """

    kind: str
    text: str
    when: Literal["before", "during"]
    validity: Validity
