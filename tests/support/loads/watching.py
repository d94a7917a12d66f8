"""Watches a load as a test wants it."""

from collections.abc import Callable
from dataclasses import dataclass

from serving_bench.harness.load.pulse import Progress


@dataclass
class Watching:
    """Calls functions of the test."""

    check: Callable[[], None] = lambda: None
    progress: Callable[[Progress], None] = lambda progress: None
