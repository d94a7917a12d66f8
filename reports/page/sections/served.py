"""What servers and devices told in the windows: requests and KV cache against time, and by load."""

from collections.abc import Sequence
from functools import partial

from harness.contracts import ServerTerm
from harness.store.store import StartRecord
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
    samples_of,
    total,
)
from reports.measures.written import NOTHING, number, several
from reports.page.drawing.charts import Chart, Part, Section, axis
from reports.page.drawing.over_time import Course, over_time
from reports.page.listed import Shown, below, listed
from reports.page.looks import looks
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
# What is drawn over time: title, unit, scale, and each term with its name and dash.
_DRAWN: tuple[tuple[str, str, float, dict[ServerTerm, tuple[str, str]]], ...] = (
    ("running (solid), waiting (dashed)", "requests", 1.0,
     {"running": ("running", "solid"), "waiting": ("waiting", "dash")}),
    ("KV cache in use", "% of the KV cache", 100.0, {"kv_cache_usage_share": ("KV cache in use", "solid")}),
)  # fmt: skip
_HEADROOM = 1.18


def section(run: Run) -> Section:
    """Return charts over time, and tables of servers, devices and the processor by load."""
    charts = _charts(run)
    told: list[Part] = [*charts, *_by_load(run), *_untold(run)] if charts else []
    claim = "From each server's own page of metrics, asked once a second. Drawn: the first starts."
    how = (
        "Shaded: the windows that were measured. Lines are thinned; lows and highs are kept. Prefix hits: "
        "tokens of prompts that were found in the cache. Output tokens/s: by the server's counter; where "
        "that grows when a request ends, a short window may hold more or fewer than were generated. Queue: "
        "from arrival to the start of work, for each request."
    )
    parts = [*told, *_devices(run), *_processor(run)]
    return Section("What servers and devices told", claim if charts else "", parts, how if charts else "")


def _charts(run: Run) -> list[Chart]:
    """Return requests and, where it is told, the KV cache of each deployment's first start."""
    charts = []
    firsts = {name: starts[0] for name in run.deployments if (starts := run.starts_of(name))}
    frames = {name: samples_of(run, record.name) for name, record in firsts.items()}
    for title, unit, scale, terms in _DRAWN:
        tops = [frame[list(terms)].max().max() for frame in frames.values() if len(frame)]
        top = 100.0 if scale != 1.0 else max([1.0, *(float(each) for each in tops if each == each)])
        for index, (name, record) in enumerate(firsts.items()):
            courses = []
            for term, (said, dash) in terms.items():
                known = frames[name][["t_ns", term]].dropna()
                if len(known):
                    values = known[term].to_numpy() * scale
                    courses.append(Course(said, record, known["t_ns"].to_numpy(), values, dash))
            if courses:
                y = axis(unit, range=[0, top * _HEADROOM])
                id_ = f"served-{next(iter(terms)).partition('_')[0]}-{index}"
                charts.append(over_time(run, id_, f"{name}: {title}", looks(run)[name], courses, y))
    return charts


def _about(group: Group) -> Of:
    return Of(group.deployment, group.load)


def _by_load(run: Run) -> list[Part]:
    return listed(
        "By load",
        "In the windows: means of the samples over starts, and the highest one; preemptions of all starts.",
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
            "samples": lambda group: _samples(run, group),
            "starts": lambda group: str(len(group.counted)),
        },
        [group for group in run.groups if group.counted],
        _about,
    )


def _gauge(run: Run, term: ServerTerm, scale: float, group: Group) -> Shown:
    found = mean_gauge(run, group, term)
    return below(number(found[0] * scale), f"peak {number(found[1] * scale)}") if found else NOTHING


def _rate(run: Run, term: ServerTerm, per: ServerTerm | None, scale: float, group: Group) -> str:
    found = pooled(run, group, term, per)
    return number(None if found is None else scale * found)


def _samples(run: Run, group: Group) -> str:
    return f"{sum(len(run.window_samples(run.server, cell)) for cell in group.counted):,}"


def _untold(run: Run) -> list[Part]:
    """Say what is missing of each deployment, and why."""
    said = []
    for name in run.deployments:
        records = run.starts_of(name)
        missing = [_NAMES[term] for term in never_told(run, [r.name for r in records]) if term in _NAMES]
        reasons = _reasons(records)
        if len(missing) == len(_NAMES):
            known = "its engine is known to have no page of metrics, or it did not get ready"
            said.append(f"{name} tells nothing: {reasons[0] if reasons else known}")
            continue
        if missing:
            said.append(f"{name} does not tell: {', '.join(missing)}")
        if unread := [reason for reason in reasons if reason.startswith("samples: ")]:
            said.append(f"{name}, {several(unread, '; ')}")
    return [paragraph(f"{'; '.join(said)}.")] if said else []


def _reasons(records: Sequence[StartRecord]) -> list[str]:
    """Return why servers did not tell something; pages that were not read come first."""
    found = [
        f"{what.removeprefix('server ')}: {why}"
        for record in records
        for what, why in record.memory_notes.items()
        if what.startswith("server ")
    ]
    return sorted(found, key=lambda reason: not reason.startswith("samples: "))


# --- devices and the processor ---------------------------------------------------------------------


def _devices(run: Run) -> list[Part]:
    return listed(
        "Devices in the windows",
        "Means over the windows, then over starts; power is of all the server's devices together. Throttled: "
        "samples in which the clocks were held down, and what for.",
        {
            "deployment": lambda pair: pair[0].deployment,
            "load": lambda pair: pair[0].load,
            "utilization %": lambda pair: number(pair[1].utilization_pct, 0),
            "power W": lambda pair: number(pair[1].power_w, 0),
            "hottest °C": lambda pair: number(pair[1].temperature_c, 0),
            "SM clock MHz": lambda pair: number(pair[1].sm_clock_mhz, 0),
            "throttled %": lambda pair: _throttled(pair[1]),
            "new ECC errors": lambda pair: number(pair[1].ecc_errors, 0),
            "samples": lambda pair: f"{pair[1].samples:,}",
            "starts": lambda pair: str(pair[1].starts),
        },
        [(group, seen) for group in run.groups if (seen := device_windows(run, group.counted))],
        lambda pair: _about(pair[0]),
    )


def _throttled(seen: DeviceWindows) -> Shown:
    if seen.throttled_share is None:
        return NOTHING
    return below(number(100 * seen.throttled_share, 0), *seen.throttled_by)


def _processor(run: Run) -> list[Part]:
    """Return cores by deployment and load, where the servers ran on the processor."""
    on_host = all(record.memory_kind == "host" for record in run.start_records)
    return listed(
        "Processor in the windows",
        "Cores that the server's processes kept busy, and the share of the machine that went to neither the "
        "server nor the client; means over starts.",
        {
            "deployment": lambda group: group.deployment,
            "load": lambda group: group.load,
            "server's cores": lambda group: number(_mean(group_cores(run, group)), 1),
            "others %": lambda group: number(_mean(_foreign(run, group)), 0),
            "starts": lambda group: str(len(group_cores(run, group))),
        },
        [group for group in run.groups if on_host and group_cores(run, group)],
        _about,
    )


def _foreign(run: Run, group: Group) -> list[float]:
    shares = [foreign_share(run, cell) for cell in group.counted]
    return [100 * max(share, 0.0) for share in shares if share is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
