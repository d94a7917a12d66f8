"""Which memory `bench fit` reckons with: a device's that is here, the machine's, or one that was named."""

from __future__ import annotations

from harness.contracts import Reason
from harness.errors import UserError
from harness.fit.fit import Memory
from harness.sampling import gpu, host


def memory_of(device: str, given_bytes: int | None) -> Memory:
    """The memory that `device` (auto, cpu, 0, "0,1") has; `given_bytes` of each is believed, and then it
    need not be here. Raises UserError for a device that is not here without them."""
    found = gpu.devices()
    why_none = found.text if isinstance(found, Reason) else None
    if device == "cpu":
        return _of_machine(given_bytes, None)
    if given_bytes is not None:
        return _as_given(device, given_bytes, is_here=why_none is None)
    if device == "auto" and why_none is not None:
        return _of_machine(None, why_none)
    return _of_devices(device)


def _of_machine(given_bytes: int | None, why_no_device: str | None) -> Memory:
    if given_bytes is not None:
        return Memory("cpu", given_bytes, None, "as given")
    size = host.machine_facts()["memory_bytes"]
    assert isinstance(size, int)
    return Memory("cpu", size, None, "this machine's" + (f"; {why_no_device}" if why_no_device else ""))


def _of_devices(device: str) -> Memory:
    """Of several the smallest one's, since engines share alike."""
    indices = (0,) if device == "auto" else gpu.select(device)
    found = gpu.devices()
    chosen = [] if isinstance(found, Reason) else [each for each in found if each.index in indices]
    sizes = [each.memory_bytes for each in chosen if each.memory_bytes]
    if len(sizes) < len(indices):
        raise UserError(f"device={device}: NVML does not tell its memory; give fit.device_memory=24GiB")
    names = ", ".join(dict.fromkeys(each.name or "without a name" for each in chosen))
    return Memory("cuda", min(sizes), len(indices), f"this machine's: {names}")


def _as_given(device: str, given_bytes: int, *, is_here: bool) -> Memory:
    if device == "auto":
        meant = "" if is_here else ", of a GPU that is not here; device=cpu means the CPU"
        return Memory("cuda", given_bytes, None, f"as given{meant}")
    parts = [part.strip() for part in device.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise UserError(f'device={device}: not a device; use cpu, 0, or "0,1"')
    return Memory("cuda", given_bytes, len(parts), "as given")
