"""What a deployment takes of a device's memory, and the KV cache that all deployments of a comparison can
hold.

Pure: what a device has and what a model's shape is are handed in. Knows no engine: what one takes beside its
weights is its own file's affair.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from engines import ENGINES, weights_bytes
from harness.contracts import Deployment, MemoryNeed, ModelFacts, Reason, Weights

Device = Literal["cpu", "cuda"]
# Bytes of each device that a deployment uses; None on a CPU, or where nobody knows.
DeviceBytes = Callable[[Deployment], int | None]
# The shape of a model; None where it is not known.
Shape = Callable[[str], ModelFacts | None]

# The estimate is meant to be right to a tenth; beyond this share its error decides whether a server starts.
FITS_SHARE = 0.9
# An engine's option that says how much of a device it may take.
SHARES: Mapping[str, str] = {
    "vllm": "gpu_memory_utilization",
    "sglang": "mem_fraction_static",
    "tgi": "cuda_memory_fraction",
}
# Engines keep whole blocks of tokens; this is a multiple of all their sizes.
_BLOCK_TOKENS = 256


def need_of(deployment: Deployment, facts: ModelFacts, device: Device) -> MemoryNeed | Reason:
    """Return what a deployment takes whose common terms are filled, or why that is not known."""
    engine = ENGINES[deployment.engine]
    needed = engine.weights(deployment)
    if not isinstance(needed, Weights):
        return needed or Reason(f"{deployment.engine} loads no weights")
    size_bytes = weights_bytes(facts, needed.quantization, needed.file_format)
    if size_bytes is None:
        return Reason(f"how large {needed.quantization} is as {needed.file_format} is not known")
    rest = engine.memory_needed(deployment, facts, device)
    return rest if isinstance(rest, Reason) else replace(rest, weights_bytes=size_bytes)


def expected(deployment: Deployment, facts: ModelFacts | None, device: Device) -> Mapping[str, int]:
    """Return StartRecord.memory_expected; empty where nothing can be said.

    That is so for a running server, for terms that are left to the engine, and for a shape that nobody knows.
    """
    terms = deployment.terms
    if facts is None or facts.parameters is None or terms.base_url or terms.fairness == "stock":
        return {}
    need = need_of(deployment, facts, device)
    if isinstance(need, Reason):
        return {}
    return {
        "weights": need.weights_bytes,
        "kv_cache": need.kv_cache_bytes,
        "overhead": need.overhead_bytes,
        "kv_bytes_per_token": need.kv_bytes_per_token,
    }


def shared_bytes(deployment: Deployment, device_bytes: int) -> int:
    """Return the memory of all devices that a deployment uses; an engine that cannot share has one
    device's."""
    is_shared = "tensor_parallel" not in ENGINES[deployment.engine].unmatched(deployment)
    return device_bytes * (deployment.terms.tensor_parallel if is_shared else 1)


def largest(least: int, most: int, holds: Callable[[int], bool]) -> int | None:
    """Return the largest number that `holds`, which it does up to some number; None if not for `least`."""
    count = bisect_left(range(least, most + 1), True, key=lambda number: not holds(number))
    return least + count - 1 if count else None


def bounded(
    deployments: Sequence[Deployment], device_bytes: DeviceBytes, shape: Shape
) -> tuple[list[Deployment], str]:
    """Give all deployments of a model with the same context the KV cache that the smallest of them can hold.

    Their terms are filled: the cache is engine.context_length x engine.concurrent_sequences. It stays that if
    each of them holds it, and if it is not known what they hold. Return them with a clause that says which.
    """
    groups: dict[object, list[Deployment]] = {}
    for each in deployments:
        groups.setdefault(_comparable(each), []).append(each)
    groups.pop(None, None)
    kept, reasons = {each: each for each in deployments}, []
    for group in groups.values():
        tokens, why = _bound(group, device_bytes, shape)
        kept |= {each: replace(each, terms=replace(each.terms, kv_cache_tokens=tokens)) for each in group}
        reasons.append(why)
    return list(kept.values()), " / ".join(dict.fromkeys(reasons))


def _comparable(deployment: Deployment) -> object:
    """Return what deployments share that are to have the same KV cache.

    None for one without a cache of ours, or whose size was given: that is not changed.
    """
    terms = deployment.terms
    if terms.base_url or ENGINES[deployment.engine].weights(deployment) is None:
        return None
    filled = (terms.context_length or 0) * (terms.concurrent_sequences or 0)
    if not terms.kv_cache_tokens or terms.kv_cache_tokens != filled:
        return None
    return deployment.model, terms.context_length, terms.kv_cache_tokens


def _bound(group: Sequence[Deployment], device_bytes: DeviceBytes, shape: Shape) -> tuple[int, str]:
    """Return the tokens that all of a group can hold, and why it is that many.

    One that does not hold a single conversation does not count: it will not start, whatever the others have.
    """
    wanted = group[0].terms.kv_cache_tokens or 0
    found = [(each, _held(each, device_bytes(each), shape(each.model))) for each in group]
    held = [(tokens, each) for each, tokens in found if isinstance(tokens, int)]
    unknown = dict.fromkeys(reason.text for _, reason in found if isinstance(reason, Reason))
    said = "engine.context_length x engine.concurrent_sequences"
    tokens, smallest = min(held, key=lambda each: each[0], default=(wanted, group[0]))
    if tokens < wanted:
        limit_gib = _limit_bytes(smallest, device_bytes(smallest) or 0) / 2**30
        said = (
            f"the most that {smallest.label} holds in {limit_gib:.1f} GiB by the arithmetic of `bench fit`, "
            f"less than {said} = {wanted}"
        )
    elif held:
        said += ", which fits"
    return tokens, "; ".join([said, *unknown])


def _held(deployment: Deployment, device_bytes: int | None, facts: ModelFacts | None) -> int | Reason:
    """Return the most KV cache that one deployment can have, in tokens, up to what its terms ask for."""
    if device_bytes is None:
        return Reason("whether it fits is not asked on a CPU, nor of a device that does not tell its memory")
    if facts is None or facts.parameters is None:
        return Reason("whether it fits is not known, since the model's shape is not")
    wanted = deployment.terms.kv_cache_tokens or 0
    context = deployment.terms.context_length or wanted
    limit_bytes = _limit_bytes(deployment, device_bytes)

    def holds(tokens: int) -> bool:
        terms = replace(deployment.terms, kv_cache_tokens=tokens)
        need = need_of(replace(deployment, terms=terms), facts, "cuda")
        return not isinstance(need, Reason) and need.total_bytes <= limit_bytes

    most = largest(context, wanted, holds)
    if most is None:
        return Reason(f"{deployment.label} does not hold one conversation, or it is not known what it takes")
    return most if most == wanted else max(context, most // _BLOCK_TOKENS * _BLOCK_TOKENS)


def _limit_bytes(deployment: Deployment, device_bytes: int) -> float:
    """Return how much of its devices a deployment may take."""
    share = getattr(deployment.options, SHARES.get(deployment.engine, ""), None)
    return shared_bytes(deployment, device_bytes) * min(share or FITS_SHARE, FITS_SHARE)
