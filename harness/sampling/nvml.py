"""NVML through its Python bindings, and what it does when it fails. The only importer of pynvml.

NVML is opened by the first question and stays open until `close`, at the end of a run, or until bench exits:
without the persistence daemon the driver wakes every device each time that NVML is opened, which takes
seconds. While it is open, the driver can be neither unloaded nor reset, so a handle does not grow stale.

A library, a driver or a device that is missing, refuses, is lost or hangs becomes AbsentError, or None with
a reason, never pynvml's exception. Knows nothing of what the values mean: that is gpu.py's.
"""

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.sampling.sampling import within

Value = TypeVar("Value")

# Without the persistence daemon the driver wakes each device at first use: a second or two for each.
INIT_LIMIT_S = 45.0
# A call that hangs holds a lock that nvmlShutdown needs as well.
SHUTDOWN_LIMIT_S = 2.0

_opening = threading.Lock()
_opened: list[Any] = []


class AbsentError(Exception):
    """There is no NVML here. The text says what is missing."""


def library() -> Any:
    """Return the pynvml module, with NVML open. Block for up to INIT_LIMIT_S; raise AbsentError."""
    with _opening:
        if not _opened:
            _opened.append(_open())
        return _opened[0]


def close() -> None:
    """Close NVML if it is open; the next question opens it again. Block for up to SHUTDOWN_LIMIT_S."""
    with _opening:
        while _opened:
            pynvml = _opened.pop()
            # A lost device may refuse, and a driver that hangs not return; there is nothing left to free.
            with suppress(pynvml.NVMLError, TimeoutError):
                within(SHUTDOWN_LIMIT_S, pynvml.nvmlShutdown)


def _open() -> Any:
    # pynvml takes a tenth of a second to import, which a machine without the driver's library is spared.
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise AbsentError("there is no NVIDIA driver (no libnvidia-ml.so.1)") from error
    try:
        import pynvml
    except ImportError as error:
        raise AbsentError("the Python package nvidia-ml-py is not installed") from error
    try:
        within(INIT_LIMIT_S, pynvml.nvmlInit)
    except TimeoutError as error:
        raise AbsentError(f"the NVIDIA driver does not answer ({error})") from error
    except pynvml.NVMLError as error:
        what = f"NVML does not start: {error}"
        if error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
            what = "the NVIDIA driver is installed but not loaded"
        raise AbsentError(what) from error
    return pynvml


def value_of(nvml: Any, notes: dict[str, str], field: str, read: Callable[[], Value]) -> Value | None:
    """Return `read()`, or None after noting NVML's reason, if it is the first."""
    try:
        return read()
    except nvml.NVMLError as error:
        notes.setdefault(field, str(error))
        return None


@dataclass
class Device:
    """One device during one look at it: its handle, and where the reasons for missing values go.

    `handle` is None if NVML gives none, and once the device is lost: the rest of the look asks it for
    nothing. `label` goes before a field's name in the notes."""

    nvml: Any
    notes: dict[str, str]
    label: str
    handle: Any

    def value(self, field: str, read: Callable[[Any], Value]) -> Value | None:
        """Return `read(handle)`, or None after noting NVML's reason, if it is the first."""
        if self.handle is None:
            return None
        try:
            return read(self.handle)
        except self.nvml.NVMLError as error:
            # No other call can work: it is lost, needs a reset, or its driver was unloaded.
            gone = ("GPU_IS_LOST", "RESET_REQUIRED", "DRIVER_NOT_LOADED", "UNINITIALIZED")
            if error.value in [getattr(self.nvml, f"NVML_ERROR_{name}") for name in gone]:
                self.handle, field = None, "handle"
            self.note(field, str(error))
            return None

    def thousandth(self, field: str, read: Callable[[Any], int]) -> float | None:
        """Return a thousandth of what `value` does: watts for milliwatts, joules for millijoules."""
        found = self.value(field, read)
        return None if found is None else found / 1000

    def note(self, field: str, reason: str) -> None:
        """Keep why a field is missing; the first reason stays."""
        self.notes.setdefault(self.label + field, reason)


def device(nvml: Any, notes: dict[str, str], index: int, label: str) -> Device:
    """Begin a look at a device."""
    handle = value_of(nvml, notes, f"{label}handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    return Device(nvml, notes, label, handle)
