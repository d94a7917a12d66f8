"""Generate agents that work on a task in steps: each step is a tool call, whose result comes back.

The results are scripted, whatever the model calls, so that a task has the same number of steps on every
engine. Each result adds to the history. An agent may ask about several parts of its task at once; it goes on
when it has all results.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from json import dumps
from random import Random

from serving_bench.harness.contracts import (
    COUNT,
    Conversation,
    Form,
    Message,
    Range,
    Scenario,
    Tool,
    ToolCall,
    Turn,
    key,
    within,
)
from serving_bench.scenarios.json_schema import object_of
from serving_bench.scenarios.lengths import MOST_ITEMS, PROMPT, length_key, lengths
from serving_bench.scenarios.text import TextOptions, prose

_SYSTEM = (
    "You are an agent that works on a task in steps. In each step call one of the tools. "
    "Call finish with the answer once you know it."
)


def _tool(name: str, description: str, argument: str) -> Tool:
    return Tool(name, description, object_of(**{argument: {"type": "string"}}))


# No agent needs more. A request's id has room for three digits.
MOST_PARALLEL = 256

FORM = Form(
    "step",
    (
        _tool("search", "Search the archive, and return what it says.", "query"),
        _tool("read_page", "Read a page of a document by its name.", "name"),
        _tool("calculate", "Return the value of an arithmetic expression.", "expression"),
        _tool("finish", "End the task with its answer.", "answer"),
    ),
)


@dataclass(frozen=True)
class AgentLoopOptions(TextOptions):
    steps: int | str = key("5..12", "The calls of a task.", foreign="length", ask_above=32)
    input_tokens: int | str = length_key(64, PROMPT)
    result_tokens: int | str = length_key("40..120", "The tokens of a tool's result.")
    output_tokens: int = key(96, "The most tokens of a step's answer.", COUNT, foreign="length")
    think_time_s: float = key(0.1, "How long a tool takes.", Range(0))
    parallel: int = key(1, "Requests at once in every second step.", within(1, MOST_PARALLEL), ask_above=32)

    @property
    def width(self) -> int:
        return self.parallel


def _call(rng: Random, is_last: bool) -> ToolCall:
    tool = FORM.tools[-1 if is_last else int(rng.random() * (len(FORM.tools) - 1))]
    return ToolCall(tool.name, dumps({argument: prose(rng, 6) for argument in tool.parameters["properties"]}))


def conversations(options: AgentLoopOptions, rng: Random) -> Iterator[Conversation]:
    """Yield tasks without end; the turns of a conversation are the steps of its task."""
    inputs, results, steps = lengths(options, "input_tokens", "result_tokens", "steps")
    while True:
        task = Message("user", f"Find out: {prose(rng, options.words(inputs(rng)))}")
        count, turns = min(steps(rng), MOST_ITEMS), list[Turn]()
        for number in range(count):
            is_last = number == count - 1
            width = options.parallel if number % 2 == 1 and not is_last else 1
            # The results of parallel requests come together.
            calls = len(turns[-1].requests) if turns else 0
            results_text = " ".join(prose(rng, options.words(results(rng))) for _ in range(calls))
            requests = [
                Turn(
                    _messages(task, results_text, f" Part {part} of {width}." if width > 1 else ""),
                    options.output_tokens,
                    options.think_time_s if number else 0.0,
                    form=FORM,
                    call=_call(rng, is_last),
                )
                for part in range(1, width + 1)
            ]
            turns.append(replace(requests[0], parallel=tuple(requests[1:])))
        yield Conversation(tuple(turns))


def _messages(task: Message, results: str, part: str) -> tuple[Message, ...]:
    return (Message("tool", results + part),) if results else (Message("system", _SYSTEM), task)


SCENARIO = Scenario(
    "agent_loop",
    "tasks in steps, each a tool call (scenario.steps=5..20 scenario.parallel=4)",
    AgentLoopOptions,
    conversations,
    forms=lambda options: (FORM,),
    ends_itself=True,
)
