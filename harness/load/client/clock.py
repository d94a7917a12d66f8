"""Map the kernel's receive stamps (CLOCK_REALTIME) onto CLOCK_MONOTONIC, the one axis of all instants.

It knows no socket and no request.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from operator import sub

FIRST_PAIRS = 1000
REFRESH_PAIRS = 100
SECOND_NS = 1_000_000_000
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
        self._former: list[tuple[int, int]] = []  # offsets before a step, and when each was found outdated

    def refresh(self) -> None:
        """Read both clocks again, so that a step is found. It takes about 50 us."""
        offset_ns, uncertainty_ns = self._best_pair(REFRESH_PAIRS)
        is_step = abs(offset_ns - self._offset_ns) > uncertainty_ns + self._offset_uncertainty_ns
        if is_step:
            self._former.append((self._monotonic_ns(), self._offset_ns))
            self.uncertainty_ns = max(self.uncertainty_ns, uncertainty_ns)
        if is_step or uncertainty_ns < self._offset_uncertainty_ns:
            self._offset_ns, self._offset_uncertainty_ns = offset_ns, uncertainty_ns

    def to_monotonic_ns(self, realtime_ns: int, read_ns: int) -> int:
        """Return the instant of a stamp that was read at `read_ns`. It is never later than that."""
        instant_ns = self._likeliest_ns(realtime_ns, read_ns)
        if not -self.uncertainty_ns <= read_ns - instant_ns <= SUSPICIOUS_LAG_NS:
            self.refresh()
            instant_ns = self._likeliest_ns(realtime_ns, read_ns)
        return min(instant_ns, read_ns)

    def all_to_monotonic_ns(self, stamps: array[int], read_ns: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the instants of many stamps, and how long after each it was read. A stamp is two numbers.

        The same as `to_monotonic_ns` for each, at a tenth of the cost. `read_ns` must ascend.
        """
        offset_ns = self._offset_ns
        pairs = zip(stamps[::2], stamps[1::2], strict=True)
        instants = [seconds * SECOND_NS + rest_ns + offset_ns for seconds, rest_ns in pairs]
        lags = list(map(sub, read_ns, instants))
        if not lags:
            return instants, lags
        was_outdated = bool(self._former) and read_ns[0] <= self._former[-1][0]
        if was_outdated or min(lags) < 0 or max(lags) > SUSPICIOUS_LAG_NS:
            realtimes = [instant - offset_ns for instant in instants]
            instants = list(map(self.to_monotonic_ns, realtimes, read_ns))
            lags = list(map(sub, read_ns, instants))
        return instants, lags

    def _likeliest_ns(self, realtime_ns: int, read_ns: int) -> int:
        """Return the instant by the offset that was in force; of several, the newest instant."""
        newest_ns = realtime_ns + self._offset_ns
        for outdated_ns, offset_ns in reversed(self._former):
            if read_ns > outdated_ns:
                break
            instant_ns = realtime_ns + offset_ns
            is_too_new = newest_ns > read_ns + self.uncertainty_ns
            if is_too_new or newest_ns < instant_ns <= read_ns + self.uncertainty_ns:
                newest_ns = instant_ns
        return newest_ns

    def _best_pair(self, pairs: int) -> tuple[int, int]:
        """Return the offset by the quickest of some readings of both clocks, and its uncertainty."""
        best_ns, offset_ns = 1 << 62, 0
        for _ in range(pairs):
            before_ns = self._monotonic_ns()
            realtime_ns = self._realtime_ns()
            took_ns = self._monotonic_ns() - before_ns
            if took_ns < best_ns:
                best_ns, offset_ns = took_ns, before_ns + took_ns // 2 - realtime_ns
        return offset_ns, best_ns // 2 + 1
