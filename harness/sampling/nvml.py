"""NVML through its Python bindings, and what it does when it fails. The only pynvml import.

A library, a driver or a device that is missing, refuses, is lost or hangs becomes AbsentError or a None with
its reason, never pynvml's exception. What the values mean is gpu.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.sampling.sampling import within

Value = TypeVar("Value")

# Without the persistence daemon the driver wakes each device at first use: a second or two for each.
INIT_LIMIT_S = 45.0
# What holds a call that hangs holds nvmlShutdown as well.
SHUTDOWN_LIMIT_S = 2.0


class AbsentError(Exception):
    """No NVML here; the sentence says what is missing."""


@contextmanager
def session() -> Iterator[Any]:
    """The pynvml module, initialised. Blocks for up to INIT_LIMIT_S; raises AbsentError."""
    try:
        import pynvml
    except ImportError as error:
        raise AbsentError("the Python package nvidia-ml-py is not installed") from error
    try:
        within(INIT_LIMIT_S, pynvml.nvmlInit)
    except TimeoutError as error:
        raise AbsentError(f"the NVIDIA driver does not answer ({error})") from error
    except pynvml.NVMLError as error:
        what = {
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "there is no NVIDIA driver (no libnvidia-ml.so.1)",
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded",
        }.get(error.value, f"NVML does not start: {error}")
        raise AbsentError(what) from error
    try:
        yield pynvml
    finally:
        # A lost device may refuse, and a driver that hangs not return; there is nothing left to free.
        with suppress(pynvml.NVMLError, TimeoutError):
            within(SHUTDOWN_LIMIT_S, pynvml.nvmlShutdown)


def value_of(nvml: Any, notes: dict[str, str], field: str, read: Callable[[], Value]) -> Value | None:
    """`read()`, or None with NVML's reason noted the first time."""
    try:
        return read()
    except nvml.NVMLError as error:
        notes.setdefault(field, str(error))
        return None


@dataclass
class Device:
    """One device during one look at it: its handle, and where the reasons for missing values go.

    `handle` is None where NVML gives none, and from when the device is lost: the rest of the
    look asks it for nothing more. `label` goes before a field's name in the notes.
    """

    nvml: Any
    notes: dict[str, str]
    label: str
    handle: Any

    def value(self, field: str, read: Callable[[Any], Value]) -> Value | None:
        """`read(handle)`, or None with NVML's reason noted the first time."""
        if self.handle is None:
            return None
        try:
            return read(self.handle)
        except self.nvml.NVMLError as error:
            if _is_gone(self.nvml, error):
                self.handle, field = None, "handle"
            self.note(field, str(error))
            return None

    def note(self, field: str, reason: str) -> None:
        self.notes.setdefault(self.label + field, reason)


def device(nvml: Any, notes: dict[str, str], index: int, label: str) -> Device:
    handle = value_of(nvml, notes, f"{label}handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    return Device(nvml, notes, label, handle)


def _is_gone(nvml: Any, error: Any) -> bool:
    """Lost, in need of a reset, or its driver unloaded: no other call to it can work."""
    return error.value in (
        nvml.NVML_ERROR_GPU_IS_LOST,
        nvml.NVML_ERROR_RESET_REQUIRED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_UNINITIALIZED,
    )
