"""Which of the things that may bound a load point did, by the evidence of one cell. Pure.

The first of these whose evidence is there, for each start that counts:

    client      its process used a whole core, or was late half of the time, or did not begin what was due
    KV cache    most of the time requests waited, and then it was full, or less of it was free than a long
                request takes while slots were free; or requests were put back (preempted)
    slots       most of the time requests waited while as many ran as the server serves at once; or more were
                in flight, by the client, than that
    compute     the processor or the device was busy all the time, with requests for all it serves at once, or
                waiting, or more and more of them in flight
    rate        (open loop) the queue did not grow, and as many ended as came
    users       (closed loop) none waited: each request's own time is what counts
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from reports.checks.bounding.bound_evidence import Client, Evidence
from reports.measures.written import number

Kind = Literal["client", "kv_cache", "slots", "compute", "rate", "users", "unclear"]
# Of the samples, or of the window: what held less often than not did not bound it.
MOST = 0.5
# One in a hundred requests done twice is no more than others' noise.
PREEMPTED_SHARE = 0.01
# A load process is one thread: near a whole core it cannot do more. Half of its timers late, or half of its
# requests, by a tenth of what a request takes: then it bears on how many there are.
CLIENT_CORES = 0.9
CLIENT_LATE_SHARE = 0.1
LEFT_OUT_SHARE = 0.01
# Near all there is: what is left of a core in two seconds of samples is 10 ms in 200.
BUSY_SHARE = 0.95
SPINNING_CORES = 0.05
# With fewer in flight than this share of the slots, a device that runs kernels all the time may still have
# room in each of them.
SLOTS_TAKEN_SHARE = 0.95
# As many ended as came: within a tenth, or by what random numbers in flight at both ends differ.
ENDED_SHARE = 0.9
ENDED_ERRORS = 3.0


def kind_of(found: Evidence) -> Kind:
    """Of one cell."""
    if found.ok < MOST * found.sent or not found.sent:
        return "unclear"
    return next((kind for kind, holds in _RULES if holds(found)), "unclear")


def is_client(found: Evidence) -> bool:
    return bool(client_reasons(found))


def client_reasons(found: Evidence) -> list[str]:
    client, reasons, late_s = found.client, [], CLIENT_LATE_SHARE * (found.client.request_s or math.inf)
    if client.busiest_cores is not None and client.busiest_cores >= CLIENT_CORES:
        reasons.append(f"its busiest process used {number(client.busiest_cores, 2)} of the one core it can")
    if client.loop_lag_s is not None and client.loop_lag_s > late_s:
        reasons.append(
            f"half of its timers were {number(1e3 * client.loop_lag_s)} ms late or more{_of(client)}"
        )
    if client.send_lag_s is not None and client.send_lag_s > late_s:
        reasons.append(
            f"half of its requests left {number(1e3 * client.send_lag_s)} ms late or more{_of(client)}"
        )
    due = client.begun + client.left_out
    if client.left_out >= LEFT_OUT_SHARE * due > 0:
        reasons.append(f"{client.left_out:,} of {due:,} conversations that were due never began")
    return reasons


def _of(client: Client) -> str:
    return f", where one takes {number(1e3 * (client.request_s or 0.0), 0)} ms"


def is_kv_cache(found: Evidence) -> bool:
    return is_preempted(found) or (waited(found) and (is_kv_full(found) or is_kv_tight(found)))


def is_preempted(found: Evidence) -> bool:
    return found.preemptions is not None and found.preemptions >= max(1.0, PREEMPTED_SHARE * found.ended)


def is_kv_full(found: Evidence) -> bool:
    return (found.samples.kv_full_share or 0.0) > MOST


def is_kv_tight(found: Evidence) -> bool:
    """Too little for a long request, with a slot for it."""
    share = found.samples.slots_share
    return (found.samples.kv_tight_share or 0.0) > MOST and share is not None and share <= MOST


def waited(found: Evidence) -> bool:
    return (found.samples.waited_share or 0.0) > MOST


def is_slots(found: Evidence) -> bool:
    return (waited(found) and (found.samples.slots_share or 0.0) > MOST) or is_over_slots(found)


def is_over_slots(found: Evidence) -> bool:
    """By the client's count, which no server's gauge can be late with."""
    return (found.over_slots_share or 0.0) > MOST


def is_compute(found: Evidence) -> bool:
    if not is_busy(found):
        return False
    if found.cell.load.kind != "closed" and not waited(found):
        return found.is_growing
    return not found.is_on_device or waited(found) or are_slots_taken(found)


def is_busy(found: Evidence) -> bool:
    if found.is_on_device:
        return (found.device_pct or 0.0) >= 100 * BUSY_SHARE
    used, limit = work(found), found.core_limit
    return used is not None and limit is not None and used >= BUSY_SHARE * limit


def work(found: Evidence) -> float | None:
    """Cores beyond those that the server keeps busy without any request; None where that is not known."""
    if found.cores is None or found.idle_cores is None:
        return None
    return found.cores - found.idle_cores


def are_slots_taken(found: Evidence) -> bool:
    return found.slots is not None and found.in_flight >= SLOTS_TAKEN_SHARE * found.slots


def is_rate(found: Evidence) -> bool:
    if found.cell.load.kind == "closed" or found.is_growing or waited(found):
        return False
    noise = ENDED_ERRORS * float(np.sqrt(2 * found.in_flight))
    return found.ended >= found.sent - max((1 - ENDED_SHARE) * found.sent, noise)


def is_users(found: Evidence) -> bool:
    return found.users is not None and did_none_wait(found)


def did_none_wait(found: Evidence) -> bool:
    """By the server's gauge; where it has none, because it serves as many at once as there were users."""
    if found.samples.waited_share is not None:
        return not waited(found)
    return found.users == 1 or (
        found.slots is not None and found.users is not None and found.users <= found.slots
    )


def is_hidden(found: Evidence) -> bool:
    """Whether the processor may be full and its samples do not show it: the thread that spins while idle may
    be the one that computes, or nothing was sampled while idle."""
    if found.is_on_device or found.cores is None or found.core_limit is None:
        return False
    used = work(found)
    if used is None:
        return found.cores >= BUSY_SHARE * found.core_limit
    return (found.idle_cores or 0.0) >= max(MOST, 9 * used)


_RULES: tuple[tuple[Kind, Callable[[Evidence], bool]], ...] = (
    ("client", is_client),
    ("kv_cache", is_kv_cache),
    ("slots", is_slots),
    ("compute", is_compute),
    ("rate", is_rate),
    ("users", is_users),
)
