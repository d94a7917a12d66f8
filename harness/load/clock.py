"""Maps the kernel's receive stamps (CLOCK_REALTIME) onto CLOCK_MONOTONIC, the one axis of all instants.

Knows no socket and no request.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_PAIRS = 1000
REFRESH_PAIRS = 100
# A stamp that looks older than this is checked against a new reading of both clocks before it is believed.
SUSPICIOUS_LAG_NS = 200_000_000


class ClockMap:
    """The offset from CLOCK_REALTIME to CLOCK_MONOTONIC, within `uncertainty_ns`.

    Both clocks run at the same rate (NTP slews both), so the offset changes only when somebody sets the
    time of day; `refresh` notices that. `uncertainty_ns` is the worst of all offsets used so far.
    """

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        realtime_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._realtime_ns = realtime_ns
        self._offset_ns, self._offset_uncertainty_ns = self._best_pair(FIRST_PAIRS)
        self.uncertainty_ns = self._offset_uncertainty_ns

    def refresh(self) -> None:
        """Read both clocks again; takes about 50 us. Call it now and then, so that a step is found."""
        offset_ns, uncertainty_ns = self._best_pair(REFRESH_PAIRS)
        is_step = abs(offset_ns - self._offset_ns) > uncertainty_ns + self._offset_uncertainty_ns
        if is_step or uncertainty_ns < self._offset_uncertainty_ns:
            self._offset_ns, self._offset_uncertainty_ns = offset_ns, uncertainty_ns
        if is_step:
            self.uncertainty_ns = max(self.uncertainty_ns, uncertainty_ns)

    def to_monotonic_ns(self, realtime_ns: int, now_ns: int) -> int:
        """The instant of a stamp that was read at `now_ns`; never later than that."""
        instant_ns = realtime_ns + self._offset_ns
        if not -self.uncertainty_ns <= now_ns - instant_ns <= SUSPICIOUS_LAG_NS:
            self.refresh()
            instant_ns = realtime_ns + self._offset_ns
        return min(instant_ns, now_ns)

    def _best_pair(self, pairs: int) -> tuple[int, int]:
        """The reading of one clock between two of the other that took the least time."""
        best_ns, offset_ns = 1 << 62, 0
        for _ in range(pairs):
            before_ns = self._monotonic_ns()
            realtime_ns = self._realtime_ns()
            took_ns = self._monotonic_ns() - before_ns
            if took_ns < best_ns:
                best_ns, offset_ns = took_ns, before_ns + took_ns // 2 - realtime_ns
        return offset_ns, best_ns // 2 + 1
