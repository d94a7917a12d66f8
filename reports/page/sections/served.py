"""What servers and their machine told in the windows, by load."""

from collections.abc import Sequence
from functools import partial

from harness.contracts import ServerTerm
from reports.data.cells import Group
from reports.data.run import Run
from reports.data.samples import (
    DeviceWindows,
    device_windows,
    foreign_share,
    group_cores,
    mean_gauge,
    never_told,
    pooled,
    total,
)
from reports.measures.written import NOTHING, number, several
from reports.page.drawing.charts import Part, Section
from reports.page.listed import Shown, below, listed
from reports.page.markup import Of, paragraph

_NAMES: dict[ServerTerm, str] = {
    "running": "running requests",
    "waiting": "waiting requests",
    "kv_cache_usage_share": "KV-cache usage",
    "prefix_hit_tokens": "prefix-cache hits",
    "preemptions": "preemptions",
    "generated_tokens": "generated tokens",
    "queue_s": "time in the queue",
}
_OF_DEVICE = {
    "utilization_pct": "utilization %",
    "power_w": "power W",
    "temperature_c": "hottest °C",
    "sm_clock_mhz": "SM clock MHz",
    "ecc_errors": "new ECC errors",
}
_TOLD = (
    "From each server's own page of metrics, asked once a second in the windows: means of the samples over "
    "starts, and the highest one; preemptions of all starts. Prefix hits: tokens of prompts that were found "
    "in the cache. Output tokens/s: by the server's counter; where that grows when a request ends, a short "
    "window may hold more or fewer than were generated. Queue: from arrival to the start of work."
)
_MACHINE = (
    "Means over the windows, then over starts. Throttled: samples in which the clocks were held down, and "
    "what for. Cores used: what the server kept busy; others: the share of the machine's processor "
    "that went to neither the server nor the client."
)


def section(run: Run) -> Section:
    """Return tables of servers and of their machine, by deployment and load."""
    told = [*_servers(run), *_untold(run)] if run.server is not None else []
    return Section("What servers and devices told", "", [*told, *_machine(run)])


def _servers(run: Run) -> list[Part]:
    return listed(
        "Servers, by load",
        _TOLD,
        {
            "deployment": lambda group: group.deployment,
            "load": lambda group: group.load,
            "running requests": partial(_gauge, run, "running", 1.0),
            "waiting requests": partial(_gauge, run, "waiting", 1.0),
            "KV cache %": partial(_gauge, run, "kv_cache_usage_share", 100.0),
            "prefix hits %": partial(_rate, run, "prefix_hit_tokens", "prefix_query_tokens", 100.0),
            "preemptions": lambda group: number(total(run, group, "preemptions"), 0),
            "output tokens/s": partial(_rate, run, "generated_tokens", None, 1.0),
            "queue ms": partial(_rate, run, "queue_s", "queued_requests", 1000.0),
            "samples": lambda group: (
                f"{sum(len(run.window_samples(run.server, cell)) for cell in group.counted):,}"
            ),
            "starts": lambda group: str(len(group.counted)),
        },
        [group for group in run.groups if group.counted],
        lambda group: Of(group.deployment, group.load),
    )


def _gauge(run: Run, term: ServerTerm, scale: float, group: Group) -> Shown:
    found = mean_gauge(run, group, term)
    return below(number(found[0] * scale), f"peak {number(found[1] * scale)}") if found else NOTHING


def _rate(run: Run, term: ServerTerm, per: ServerTerm | None, scale: float, group: Group) -> str:
    found = pooled(run, group, term, per)
    return number(None if found is None else scale * found)


def _untold(run: Run) -> list[Part]:
    """Say what is missing of each deployment, and why its page was not read."""
    said = []
    for name in run.deployments:
        records = run.starts_of(name)
        missing = [_NAMES[term] for term in never_told(run, [r.name for r in records]) if term in _NAMES]
        unread = [record.memory_notes.get("server samples", "") for record in records]
        why = f" ({several(list(filter(None, unread)), '; ')})" if any(unread) else ""
        if missing or why:
            what = "all" if len(missing) == len(_NAMES) else ", ".join(missing) or "nothing at times"
            said.append(f"{name}: {what}{why}")
    return [paragraph(f"Not told: {'; '.join(said)}.")] if said else []


def _machine(run: Run) -> list[Part]:
    """Return what devices and the processor did by deployment and load."""
    seen = [(group, device_windows(run, group.counted)) for group in run.groups]
    return listed(
        "The machine, by load",
        _MACHINE,
        {
            "deployment": lambda pair: pair[0].deployment,
            "load": lambda pair: pair[0].load,
            **{title: partial(_of_device, name) for name, title in _OF_DEVICE.items()},
            "throttled %": lambda pair: _throttled(pair[1]),
            "device samples": lambda pair: f"{pair[1].samples:,}" if pair[1] else "",
            "cores used": lambda pair: number(_mean(group_cores(run, pair[0])), 1),
            "others %": lambda pair: number(_mean(_foreign_pct(run, pair[0])), 0),
            "starts": lambda pair: str(len(pair[0].counted)),
        },
        [(group, each) for group, each in seen if each or group_cores(run, group)],
        lambda pair: Of(pair[0].deployment, pair[0].load),
    )


def _of_device(name: str, pair: tuple[Group, DeviceWindows | None]) -> str:
    return number(getattr(pair[1], name, None), 0)


def _throttled(seen: DeviceWindows | None) -> Shown:
    if seen is None or seen.throttled_share is None:
        return NOTHING
    return below(number(100 * seen.throttled_share, 0), *seen.throttled_by)


def _foreign_pct(run: Run, group: Group) -> list[float]:
    shares = [foreign_share(run, cell) for cell in group.counted]
    return [100 * max(share, 0.0) for share in shares if share is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
