"""What the newest samples of a start say, for a person to see while it runs."""

import time
from contextlib import ExitStack
from typing import Any

import pytest
from make_run import GIB, host_samples
from reads import Reads

from serving_bench.harness.run.watch import Watch
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.sampling.sampling import Sampling
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.settings.units import size_text


def watching(devices: int = 0, **rows: list[Any]) -> Watch:
    """With these rows read so far."""
    samplers: dict[str, Sampling[Any]] = {}
    for name, known in rows.items():
        samplers[name] = Sampling(Reads(known.copy))
        samplers[name].mark()
    return Watch(samplers, ExitStack(), None, has_server=True, devices=devices)  # type: ignore[arg-type]


def page(running: float | None, waiting: float | None, ago_s: float = 0.0) -> ServerSample:
    t_ns = time.monotonic_ns() - int(ago_s * 1e9)
    return ServerSample(t_ns, running, waiting, *[None] * 8, scrape_s=0.001)


def device(number: int, used_bytes: int | None, process_bytes: int | None) -> DeviceSample:
    return DeviceSample(time.monotonic_ns(), number, used_bytes, process_bytes, 50, 10, 100.0, None, 40, 1000)


UNKNOWN = "running and waiting requests not known; memory not known"


def test_before_the_first_sample_nothing_is_known() -> None:
    assert watching(host=[], server=[]).now() == UNKNOWN
    assert watching(1).now() == UNKNOWN


def test_the_servers_page_and_its_processes_are_told() -> None:
    host = host_samples(time.monotonic_ns(), GIB, seconds=1)[:1]
    said = watching(host=host, server=[page(1, 1), page(3, None)]).now()
    assert said == f"3 running, - waiting; memory {size_text(host[0].rss_bytes)} (RSS of its processes)"


def test_a_page_that_was_not_had_for_a_while_says_nothing_of_now() -> None:
    assert watching(server=[page(3, 2, ago_s=60.0)]).now() == UNKNOWN


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([(0, 9, 2), (1, 9, 3), (0, 9, 4), (1, 9, 5)], "9.0 MiB (on the device, its own)"),
        ([(0, 7, None), (1, 8, None)], "15 MiB (on the device, of all)"),
        ([(0, 7, None), (1, None, None)], "not known"),
        ([(0, 7, 1)], "not known"),
    ],
)
def test_the_memory_of_several_devices_is_added(
    samples: list[tuple[int, int | None, int | None]], words: str
) -> None:
    rows = [
        device(number, *(mib if mib is None else mib << 20 for mib in sizes)) for number, *sizes in samples
    ]
    assert watching(2, device=rows).now().endswith(f"; memory {words}")
