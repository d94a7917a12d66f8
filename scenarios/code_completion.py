"""Generate code to complete: short answers, many of which the user does not wait for.

A user who goes on typing leaves before the answer ends, as an editor cancels its request.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nextafter
from random import Random

from serving_bench.harness.contracts import (
    ABOVE_ZERO,
    Conversation,
    Message,
    Range,
    Scenario,
    ScenarioOptions,
    Turn,
    key,
    within,
)
from serving_bench.scenarios.lengths import ANSWER, PROMPT, length_key, lengths

_SYSTEM = "Complete the Python code. Answer with the code that follows, and nothing else."
_NAMES = """
    account balance batch buffer cache client column count cursor delay entry error event file filter
    group handler header index item key label limit line list lock message name node offset order page
    parser path query queue record request result row score session size source state step stream table
    target task token total tree user value weight width window worker
""".split()  # noqa: SIM905 - a list of quoted words reads worse
_LINES = (
    "    {a} = {b}.get({c!r}, {n})",
    "    if {a} > {n}:\n        raise ValueError(f'{a}={{{a}}}: must be {n} or less')",
    "    for {a} in {b}:\n        {c} += {a}.{b}",
    "    with open({a}) as {b}:\n        {c} = {b}.read().splitlines()",
    "    {a} = [{b}.{c} for {b} in {a}s if {b}.{c} is not None]",
    "    {a}, {b} = divmod({c}, {n})",
    "    return max({a}, {b}) - {c}[{n}]",
    "    # The {a} of a {b} is never larger than its {c}.",
)


@dataclass(frozen=True)
class CodeCompletionOptions(ScenarioOptions):
    """Lengths in tokens, written as in `fixed`. Users leave after 0.5 to 1.5 times `left_after_s`."""

    input_tokens: int | str = length_key("128..512", PROMPT)
    output_tokens: int | str = length_key("16..48", ANSWER)
    # Requests whose user leaves count in no figure, so some must stay.
    left: float = key(0.3, "The share of requests whose user leaves.", within(0, 0.9))
    left_after_s: float = key(
        0.4,
        "How long these wait, in the mean.",
        Range(ABOVE_ZERO, nextafter(3600, 0), "must be above 0 and below 3600 s"),
    )


# Tokens per character of such code: 0.29 with SmolLM2's tokenizer, 0.31 with Gemma 3's.
_TOKENS_PER_CHARACTER = 0.3


def _code(rng: Random, tokens: int) -> str:
    def name() -> str:
        return _NAMES[int(rng.random() * len(_NAMES))]

    code, characters = f"def {name()}_{name()}({name()}, {name()}):\n", tokens / _TOKENS_PER_CHARACTER
    while len(code) < characters:
        line = _LINES[int(rng.random() * len(_LINES))]
        code += line.format(a=name(), b=name(), c=name(), n=2 + int(rng.random() * 200)) + "\n"
    return code


def conversations(options: CodeCompletionOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    while True:
        messages = (Message("system", _SYSTEM), Message("user", _code(rng, inputs(rng))))
        is_left, after_s = rng.random() < options.left, (0.5 + rng.random()) * options.left_after_s
        yield Conversation((Turn(messages, outputs(rng), leave_after_s=after_s if is_left else None),))


SCENARIO = Scenario(
    "code_completion",
    "code to complete, for users who often do not wait (scenario.left=0.3)",
    CodeCompletionOptions,
    conversations,
    ends_itself=True,
)
