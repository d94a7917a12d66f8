"""Generate what users say and when: pure, seeded generators of conversations, one file each."""

from collections.abc import Mapping

from serving_bench.harness.contracts import Form, Scenario, ScenarioChoice, check_section
from serving_bench.harness.plugins import Table
from serving_bench.scenarios import (
    agent_loop,
    burst,
    chat_multi_turn,
    code_completion,
    file,
    fixed,
    long_context,
    lora_mix,
    offline_batch,
    rag,
    reasoning,
    shared_prefix,
    structured_output,
    summarise,
    trace,
)
from serving_bench.scenarios.lengths import is_column, length
from serving_bench.scenarios.python_file import given_scenario
from serving_bench.scenarios.text import TOKENS_PER_WORD, prose

__all__ = [
    "SCENARIOS",
    "TOKENS_PER_WORD",
    "forms_of",
    "has_tools",
    "is_column",
    "least_output_tokens",
    "length",
    "prose",
]

_OWN: Mapping[str, Scenario] = {
    each.SCENARIO.name: each.SCENARIO
    for each in (
        chat_multi_turn,
        shared_prefix,
        rag,
        agent_loop,
        reasoning,
        long_context,
        summarise,
        code_completion,
        structured_output,
        lora_mix,
        offline_batch,
        burst,
        fixed,
        trace,
        file,
    )
}
SCENARIOS = Table("scenarios", _OWN, lambda scenario: check_section(scenario.options), given_scenario)


def forms_of(chosen: ScenarioChoice) -> tuple[Form, ...]:
    """Return the forms that a scenario's turns ask for."""
    return SCENARIOS[chosen.name].forms(chosen.options)


def has_tools(chosen: ScenarioChoice) -> bool:
    """Return whether a scenario's turns ask for tool calls."""
    return any(form.tools for form in forms_of(chosen))


def least_output_tokens(chosen: ScenarioChoice) -> int | None:
    """Return the fewest tokens of an answer, if the options say it. Ignores `scenario.spread`."""
    given = getattr(chosen.options, "output_tokens", None)
    return None if given is None else length("output_tokens", given).least
