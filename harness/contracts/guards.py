"""Whether the machine was fit to measure. Standard library only; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.contracts.words import Validity

# Share of all cores that other programs may use: beyond it, they change a result by as much.
FOREIGN_SHARE = 0.15
# A look before a cell takes so long, with server and load idle.
LOOK_S = 0.5
# What makes a machine unfit.
Unfit = Literal[
    "foreign_process",
    "memory_not_back",
    "throttled",
    "clocks_low",
    "device_lost",
    "foreign_load",
    "steal",
    "swap",
    "disk_low",
    "few_files",
]
# What an unfit machine means. mark: it is waited for, then measured all the same, and the cell is suspect.
# strict: the cell is refused, or invalid where it became unfit in the window; --resume measures it again.
# off: nobody looks.
GuardMode = Literal["strict", "mark", "off"]


@dataclass(frozen=True)
class GuardTerms:
    """`wait_s`: how long an unfit machine is waited for, before a start and before a cell."""

    wait_s: float = 30.0


@dataclass(frozen=True)
class GuardFinding:
    """What made the machine unfit for a cell.

    `text`: a clause with the numbers. `when`: it was seen before the cell, or during its window.
    `validity`: what it makes of the cell.
    """

    kind: Unfit
    text: str
    when: Literal["before", "during"]
    validity: Validity
