"""Which memory `bench fit` and a plan count on: a device's that is here, the machine's, or one that was
named."""

from collections.abc import Sequence

from harness.contracts import Reason
from harness.errors import UserError
from harness.fit.fit import Memory
from harness.sampling import environment, gpu


def memory_of(device: str, given_bytes: int | None) -> Memory:
    """Return the memory that `device` (auto, cpu, 0, "0,1") has.

    `given_bytes` of each is believed, and then it need not be here. Raises UserError for a device that is not
    here without them.
    """
    found = gpu.devices()
    is_here = not isinstance(found, Reason)
    if given_bytes is not None and device in ("auto", "cpu"):
        is_meant = is_here or device == "cpu"
        meant = "" if is_meant else ", of a GPU that is not here; device=cpu means the CPU"
        return Memory("cpu" if device == "cpu" else "cuda", given_bytes, None, f"as given{meant}")
    if given_bytes is not None:
        return Memory("cuda", given_bytes, len(gpu.listed(device)), "as given")
    if device == "cpu" or (device == "auto" and not is_here):
        size = environment.machine_facts()["memory_bytes"]
        assert isinstance(size, int)
        why = f"; {found.text}" if isinstance(found, Reason) and device == "auto" else ""
        return Memory("cpu", size, None, f"this machine's{why}")
    indices = (0,) if device == "auto" else gpu.select(device)
    least_bytes = smallest_bytes(indices)
    if least_bytes is None or isinstance(found, Reason):
        raise UserError(f"device={device}: NVML does not tell its memory; give fit.device_memory=24GiB")
    named = dict.fromkeys(each.name or "without a name" for each in found if each.index in indices)
    return Memory("cuda", least_bytes, len(indices), f"this machine's: {', '.join(named)}")


def smallest_bytes(indices: Sequence[int]) -> int | None:
    """Return the memory of the smallest of these devices, since engines share alike; None if not all tell
    it."""
    found = gpu.devices()
    sizes = {} if isinstance(found, Reason) else {each.index: each.memory_bytes for each in found}
    known = [size for index in indices if (size := sizes.get(index))]
    return min(known) if known and len(known) == len(indices) else None
