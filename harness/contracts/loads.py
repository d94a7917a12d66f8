"""How conversations arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arrival = Literal["constant", "poisson", "gamma", "trace"]

# load.max_failed looks at the last LAST_REQUESTS of a load process, cancelled ones left out, once
# FEWEST_REQUESTS have ended.
LAST_REQUESTS, FEWEST_REQUESTS = 100, 20


@dataclass(frozen=True)
class Load:
    """How conversations arrive; the field's unit is no part of its key (`load.rate=2/s`).

    Closed loop: `concurrency` users, each with at most one request in flight. Open loop: `rate_per_s`
    conversations begin per second, whether or not the server keeps up; `arrival` spaces them, and
    `burstiness` is the shape of `gamma` (1: Poisson; below: burstier; above: more even). With the arrival
    `trace` each conversation begins at its own `arrival_s`, divided by `speedup`. Exactly one of the three:
    `concurrency` is None in the other two.

    A cell is ramp-up, warm-up, window, ramp-down, drain. Over `ramp_up_s` users or rate grow from nothing
    to the load, over `ramp_down_s` they shrink again, `linear` or in `ramp_steps` equal `steps`.

    The window ends after `duration_s` (None: no bound). If fewer than `min_requests` have been sent in it and
    ended by then, it goes on for `duration_s` more, up to `steps` times that in all. It also ends when
    `conversations` (counted from its start) have begun and there are no more to begin: in an open loop at the
    instant of the next one, in a closed loop once `min_requests` have ended, or nobody is talking any more.
    The conversations that began are then finished, for up to `grace_s` (None: the window's length again).

    A request that runs longer than `timeout_s` is ended as `timeout`. Once more than `max_failed_share` of
    the last requests failed, the cell is ended.

    `workers` load processes share the load. `tokenizer`: a tokenizer.json that counts output tokens beside
    the server. `keep_bytes` keeps each response as it came, not only failed ones.
    """

    concurrency: int | None = 1
    rate_per_s: float | None = None
    arrival: Arrival = "poisson"
    burstiness: float = 1.0
    speedup: float = 1.0
    ramp_up_s: float = 0.0
    ramp_down_s: float = 0.0
    ramp: Literal["linear", "steps"] = "linear"
    ramp_steps: int = 4
    warmup_s: float = 2.0
    duration_s: float | None = 8.0
    steps: int = 4
    min_requests: int = 11  # what a p50 needs
    conversations: int | None = None
    grace_s: float | None = None
    timeout_s: float = 120.0
    max_failed_share: float | None = None
    workers: int = 1
    tokenizer: str | None = None
    keep_bytes: bool = False

    @property
    def kind(self) -> Literal["closed", "open", "trace"]:
        if self.arrival == "trace":
            return "trace"
        return "closed" if self.rate_per_s is None else "open"

    @property
    def label(self) -> str:
        """Return what people call it: `8 users`, `2.5/s poisson`, `trace x2`."""
        if self.kind == "trace":
            return f"trace x{self.speedup:g}"
        if self.rate_per_s is not None:
            shape = f" {self.burstiness:g}" if self.arrival == "gamma" else ""
            return f"{self.rate_per_s:g}/s {self.arrival}{shape}"
        return f"{self.concurrency} user" + ("" if self.concurrency == 1 else "s")
