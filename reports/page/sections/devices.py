"""What devices did in the windows, by deployment and load: a part of the memory section."""

from collections.abc import Callable

from reports.data.machine import Counted, DeviceWindows, device_windows
from reports.data.run import Run
from reports.measures.written import NOTHING, number
from reports.page.markup import Html, Of, Row, join, long_table, note, tag

_Cell = Html | str
# Title, and what is shown; a column that no device told is left out.
_COLUMNS: tuple[tuple[str, Callable[[DeviceWindows], _Cell]], ...] = (
    ("utilization %", lambda seen: number(seen.utilization_pct, 0)),
    ("power W", lambda seen: number(seen.power_w, 0)),
    ("hottest °C", lambda seen: number(seen.temperature_c, 0)),
    ("SM clock MHz", lambda seen: number(seen.sm_clock_mhz, 0)),
    ("throttled %", lambda seen: _throttled(seen)),
    ("ECC errors", lambda seen: _counted(seen.ecc_errors)),
    ("PCIe link", lambda seen: ", ".join(seen.pcie_links) or NOTHING),
    ("PCIe replays", lambda seen: _counted(seen.pcie_replays)),
    ("samples", lambda seen: f"{seen.samples:,}"),
    ("starts", lambda seen: str(seen.starts)),
)
_NOTE = note(
    "Means over the windows, then over starts; power is of all the server's devices together.",
    "Throttled: samples in which the hardware or the driver held the clocks down, and what for. ECC errors "
    "that could not be corrected and PCIe packets that were sent again (replays): of all devices since the "
    "driver was loaded; new: those of the windows. PCIe link: generation and lanes; an idle device may lower "
    "its own.",
)


def device_parts(run: Run) -> list[Html]:
    """Nothing where no device was sampled."""
    seen = [(group, found) for group in run.groups if (found := device_windows(run, group))]
    if not seen:
        return []
    told = [(title, [show(found) for _, found in seen]) for title, show in _COLUMNS]
    kept = [(title, cells) for title, cells in told if any(cell != NOTHING for cell in cells)]
    rows = [
        Row(
            [group.deployment, group.load, *(cells[at] for _, cells in kept)],
            Of(group.deployment, group.load),
        )
        for at, (group, _) in enumerate(seen)
    ]
    columns = ["deployment", "load", *(title for title, _ in kept)]
    return [
        tag("h3", "Devices in the windows"),
        _NOTE,
        long_table(columns, rows, "plain", "Devices in the windows"),
    ]


def _throttled(seen: DeviceWindows) -> _Cell:
    if seen.throttled_share is None:
        return NOTHING
    share = number(100 * seen.throttled_share, 0)
    if not seen.throttled_by:
        return share
    return join([tag("span", share), *(tag("span", name, class_="range") for name in seen.throttled_by)])


def _counted(counted: Counted | None) -> _Cell:
    if counted is None:
        return NOTHING
    return join([tag("span", f"{counted.total:,}"), tag("span", f"{counted.grown:,} new", class_="range")])
