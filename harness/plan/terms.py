"""Fill the common terms of a plan: requests served at once, a chat template for tools, a KV cache's size.

Reads nothing but a scenario's file. The device's memory and the model's shape are given as facts.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from heapq import heappop, heappush
from itertools import islice
from math import ceil, inf
from random import Random
from typing import Literal

from serving_bench.engines import ENGINES, TOOL_TEMPLATES, weights_bytes
from serving_bench.harness.contracts import (
    Deployment,
    Load,
    MemoryNeed,
    ModelFacts,
    Reason,
    ScenarioChoice,
    Weights,
)
from serving_bench.harness.plan.facts import Facts
from serving_bench.scenarios import SCENARIOS, has_tools

Device = Literal["cpu", "cuda"]


# The slowest answer that is planned for, about as fast as a person reads.
ANSWER_TOKENS_PER_S = 10.0
# Bounds for an open loop. Some engines reserve a whole engine.context_length for each request: llama.cpp
# 2.2 GiB at 64 x 4,096.
FEWEST, MOST = 8, 256
_LOOKED_AT = 100


@dataclass(frozen=True)
class AtOnce:
    """How many requests are served at once. `why` is a clause for people."""

    count: int
    why: str


def at_once(loads: Sequence[Load], scenarios: Sequence[ScenarioChoice]) -> AtOnce:
    return max((needed(load, each) for load in loads for each in scenarios), key=lambda each: each.count)


@cache
def needed(load: Load, scenario: ScenarioChoice) -> AtOnce:
    """Return how many requests one load has in flight: its users, or in an open loop its conversations under
    way, times the requests that each sends at once.

    For a rate these conversations are the rate times the seconds that one takes at ANSWER_TOKENS_PER_S with
    its think times. For a trace they are the most at any instant. An open loop has FEWEST to MOST requests.
    """
    width = scenario.width
    parallel = f" x {width} parallel requests of {scenario.name}" if width > 1 else ""
    if load.concurrency is not None:
        return AtOnce(load.concurrency * width, f"the largest load.concurrency{parallel}")
    pace = f"at {ANSWER_TOKENS_PER_S:g} output tokens/s"
    arrivals = SCENARIOS[scenario.name].arrivals(scenario.options)
    if load.kind == "trace" and arrivals is not None:
        count = _busiest(arrivals, load.speedup)
        why = f"the busiest moment of {load.label}, {pace}"
    elif load.kind == "batch":
        count, why = load.conversations or 0, "load.conversations, which begin at once"
    else:
        assert load.rate_per_s is not None
        conversations = SCENARIOS[scenario.name].conversations(scenario.options, Random(0))
        first_ones = list(islice(conversations, _LOOKED_AT))
        turns = [turn for conversation in first_ones for turn in conversation.turns]
        all_s = sum(turn.max_tokens / ANSWER_TOKENS_PER_S + turn.think_time_s for turn in turns)
        mean_s = all_s / len(first_ones)
        count = ceil(load.rate_per_s * mean_s)
        why = f"load.rate={load.rate_per_s:g}/s x {mean_s:.3g} s, a conversation of {scenario.name} {pace}"
    count *= width
    kept = min(max(count, FEWEST), MOST)
    bound = "" if kept == count else f", but {kept} at the {'least' if count < kept else 'most'}"
    return AtOnce(kept, why + parallel + bound)


def _busiest(arrivals: Iterable[tuple[float, int]], speedup: float) -> int:
    """Return the most arrivals under way at once. Keeps only those in memory: a trace may have millions."""
    ends_s, most = list[float](), 0
    for arrival_s, tokens in arrivals:
        now_s = arrival_s / speedup
        while ends_s and ends_s[0] <= now_s:
            heappop(ends_s)
        heappush(ends_s, now_s + tokens / ANSWER_TOKENS_PER_S)
        most = max(most, len(ends_s))
    return most


def able_to_call(
    deployments: Sequence[Deployment], scenarios: Sequence[ScenarioChoice]
) -> tuple[list[Deployment], str]:
    """Give bench's chat template to deployments whose model's own leaves tools out, if a scenario has tools.

    The clause names the templates. A template that the user gave stays, and so does all of fairness=stock.
    """
    is_needed = any(map(has_tools, scenarios))
    able, reasons = list[Deployment](), dict[str, None]()
    for each in deployments:
        template = TOOL_TEMPLATES.get(each.model)
        is_ours = each.terms.base_url is None and each.terms.fairness != "stock"
        if is_needed and is_ours and template and each.terms.chat_template is None:
            each = replace(each, terms=replace(each.terms, chat_template=str(template)))
            reasons[f"bench's {template.name}, since the template of {each.model} leaves tools out"] = None
        able.append(each)
    return able, "; ".join(reasons)


# The estimate should be right to a tenth. Beyond this share its error decides whether a server starts.
FITS_SHARE = 0.9
# An engine's option that says how much of a device it may take.
SHARES: Mapping[str, str] = {
    "vllm": "gpu_memory_utilization",
    "sglang": "mem_fraction_static",
    "tgi": "cuda_memory_fraction",
}
# Engines keep whole blocks of tokens; this is a multiple of all their sizes.
BLOCK_TOKENS = 256


def draft_facts(deployment: Deployment, shapes: Mapping[str, ModelFacts]) -> ModelFacts | None:
    """Return the shape of the model that drafts; None if none does, or if it is not known."""
    return None if deployment.draft is None else shapes.get(deployment.draft.model)


def need_of(
    deployment: Deployment, facts: ModelFacts, device: Device, draft: ModelFacts | None = None
) -> MemoryNeed | Reason:
    """Return the memory that a deployment with filled terms needs, or why that is not known.

    `draft`: the facts of the model that drafts, whose weights and KV cache count too.
    """
    need = _need_of_one(deployment, facts, device)
    if deployment.draft is None or isinstance(need, Reason):
        return need
    if draft is None:
        return Reason(f"the shape of {deployment.draft.model}, which drafts, is not known")
    drafts = _need_of_one(deployment.draft, draft, device)
    if isinstance(drafts, Reason):
        return drafts
    return replace(
        need,
        weights_bytes=need.weights_bytes + drafts.weights_bytes,
        kv_cache_bytes=need.kv_cache_bytes + drafts.kv_cache_bytes,
        kv_bytes_per_token=need.kv_bytes_per_token + drafts.kv_bytes_per_token,
    )


def _need_of_one(deployment: Deployment, facts: ModelFacts, device: Device) -> MemoryNeed | Reason:
    engine = ENGINES[deployment.engine]
    needed = engine.weights(deployment)
    if not isinstance(needed, Weights):
        return needed or Reason(f"{deployment.engine} loads no weights")
    size_bytes = weights_bytes(facts, needed.quantization, needed.file_format)
    if size_bytes is None:
        return Reason(f"how large {needed.quantization} is as {needed.file_format} is not known")
    rest = engine.memory_needed(deployment, facts, device)
    return rest if isinstance(rest, Reason) else replace(rest, weights_bytes=size_bytes)


def needed_bytes(
    deployment: Deployment, facts: ModelFacts, device: Device, draft: ModelFacts | None = None, **terms: int
) -> float:
    """Return the bytes that a deployment needs with these common terms; infinity if that is not known."""
    changed = replace(deployment, terms=replace(deployment.terms, **terms))  # type: ignore[arg-type]
    need = need_of(changed, facts, device, draft)
    return inf if isinstance(need, Reason) else need.total_bytes


def expected(
    deployment: Deployment, facts: ModelFacts | None, device: Device, draft: ModelFacts | None = None
) -> Mapping[str, int]:
    """Return StartRecord.memory_expected; empty if nothing is known."""
    terms = deployment.terms
    if facts is None or facts.parameters is None or terms.base_url or terms.fairness == "stock":
        return {}
    if isinstance(need := need_of(deployment, facts, device, draft), Reason):
        return {}
    return {
        "weights": need.weights_bytes,
        "kv_cache": need.kv_cache_bytes,
        "overhead": need.overhead_bytes,
        "kv_bytes_per_token": need.kv_bytes_per_token,
    }


def shared_bytes(deployment: Deployment, device_bytes: int) -> int:
    """Return the memory of the devices that a deployment uses; one device's if the engine cannot share."""
    is_shared = "tensor_parallel" not in ENGINES[deployment.engine].unmatched(deployment)
    return device_bytes * (deployment.terms.tensor_parallel if is_shared else 1)


def bounded(deployments: Sequence[Deployment], facts: Facts) -> tuple[list[Deployment], str]:
    """Give all deployments of a model with the same context the KV cache that the smallest of them can hold.

    The cache stays as it is if each of them can hold it, or if that is not known. The clause says which.
    """
    groups: dict[object, list[Deployment]] = {}
    for each in deployments:
        groups.setdefault(_comparable(each), []).append(each)
    groups.pop(None, None)
    kept, reasons = {each: each for each in deployments}, []
    for group in groups.values():
        tokens, why = _bound(group, facts)
        kept |= {each: replace(each, terms=replace(each.terms, kv_cache_tokens=tokens)) for each in group}
        reasons.append(why)
    return list(kept.values()), " / ".join(dict.fromkeys(reasons))


def _comparable(deployment: Deployment) -> object:
    """Return a key that deployments share if they should have the same KV cache.

    None for one whose cache bench does not size, or whose size was given and so is kept.
    """
    terms = deployment.terms
    if terms.base_url or ENGINES[deployment.engine].weights(deployment) is None:
        return None
    filled = (terms.context_length or 0) * (terms.concurrent_sequences or 0)
    if not terms.kv_cache_tokens or terms.kv_cache_tokens != filled:
        return None
    return deployment.model, terms.context_length, terms.kv_cache_tokens


def _bound(group: Sequence[Deployment], facts: Facts) -> tuple[int, str]:
    """Return the tokens that every deployment of a group can hold, and why.

    One that cannot hold a single conversation does not count: it will not start, whatever the others have.
    """
    wanted = group[0].terms.kv_cache_tokens or 0
    sizes = [(each, _held(each, facts)) for each in group]
    fitting = [(tokens, each) for each, tokens in sizes if isinstance(tokens, int)]
    unknown = dict.fromkeys(str(reason) for _, reason in sizes if isinstance(reason, Reason))
    words = "engine.context_length x engine.concurrent_sequences"
    tokens, smallest = min(fitting, key=lambda each: each[0], default=(wanted, group[0]))
    if tokens < wanted:
        limit_gib = _limit_bytes(smallest, facts.device_bytes[smallest]) / 2**30
        words = (
            f"the most that {smallest.label} holds in {limit_gib:.1f} GiB by the arithmetic of `bench fit`, "
            f"less than {words} = {wanted}"
        )
    elif fitting:
        words += ", which fits"
    return tokens, "; ".join([words, *unknown])


def _held(deployment: Deployment, of_plan: Facts) -> int | Reason:
    """Return the tokens of the largest KV cache that a deployment can have, up to what its terms ask for."""
    facts, device_bytes = of_plan.shapes.get(deployment.model), of_plan.device_bytes.get(deployment)
    if device_bytes is None:
        return Reason("whether it fits is not checked on a CPU, or if a device does not report its memory")
    if facts is None or facts.parameters is None:
        return Reason("whether it fits is not known, since the model's shape is not")
    wanted = deployment.terms.kv_cache_tokens or 0
    context = deployment.terms.context_length or wanted
    limit_bytes = _limit_bytes(deployment, device_bytes)
    needed = partial(needed_bytes, deployment, facts, "cuda", draft_facts(deployment, of_plan.shapes))
    sizes = range(context, wanted + 1)
    holding = bisect_right(sizes, limit_bytes, key=lambda tokens: needed(kv_cache_tokens=tokens))
    if not holding:
        return Reason(f"{deployment.label} does not hold one conversation, or it is not known what it takes")
    most = sizes[holding - 1]
    return most if most == wanted else max(context, most // BLOCK_TOKENS * BLOCK_TOKENS)


def _limit_bytes(deployment: Deployment, device_bytes: int) -> float:
    share = getattr(deployment.options, SHARES.get(deployment.engine, ""), None)
    return shared_bytes(deployment, device_bytes) * min(share or FITS_SHARE, FITS_SHARE)
