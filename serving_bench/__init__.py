"""Which engine, at which quantization, should serve your language model on your device.

`run`, `plan`, `open_run` and `compare` do what the commands do (docs/python.md). The rest is what an engine,
a scenario, a metric or a quantization of another package is made of (docs/adding.md). Each is imported when
it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving_bench.api import Report, compare, open_run, plan, run
    from serving_bench.engines.common.launching import (
        args_key,
        checkpoint,
        container,
        environment_key,
        flags,
        given,
        image_key,
    )
    from serving_bench.engines.common.output import from_log, from_page
    from serving_bench.engines.model.sizes import Quantization, Recipe
    from serving_bench.harness.contracts import (
        COUNT,
        NOT_NEGATIVE,
        POSITIVE,
        AttachSpec,
        ContainerSpec,
        Conversation,
        Deployment,
        Engine,
        EngineTerms,
        Fairness,
        Form,
        Hint,
        InstallSpec,
        LaunchSpec,
        MemoryNeed,
        Message,
        ModelFacts,
        NativeSpec,
        Place,
        Plan,
        Range,
        Reason,
        Said,
        Scenario,
        ScenarioOptions,
        ServerMetric,
        Stage,
        Tool,
        ToolCall,
        Turn,
        Weights,
        key,
        within,
    )
    from serving_bench.harness.errors import BenchError, Interrupted, StoreError, UserError
    from serving_bench.reports.data import Cell, Run
    from serving_bench.reports.measures.metric import Metric, Value
    from serving_bench.reports.two_runs.compare import Comparison

__all__ = [
    "COUNT", "NOT_NEGATIVE", "POSITIVE", "AttachSpec", "BenchError", "Cell", "Comparison",
    "ContainerSpec", "Conversation", "Deployment", "Engine", "EngineTerms", "Fairness", "Form", "Hint",
    "InstallSpec", "Interrupted", "LaunchSpec", "MemoryNeed", "Message", "Metric", "ModelFacts",
    "NativeSpec", "Place", "Plan", "Quantization", "Range", "Reason", "Recipe", "Report", "Run", "Said",
    "Scenario", "ScenarioOptions", "ServerMetric", "Stage", "StoreError", "Tool", "ToolCall", "Turn",
    "UserError", "Value", "Weights", "args_key", "checkpoint", "compare", "container", "environment_key",
    "flags", "from_log", "from_page", "given", "image_key", "key", "open_run", "plan", "run", "within",
]  # fmt: skip
# The modules that have the names; all others are in harness.contracts.
_HOMES = {
    "api": ("Report", "compare", "open_run", "plan", "run"),
    "engines.common.launching": (
        "args_key", "checkpoint", "container", "environment_key", "flags", "given", "image_key",
    ),
    "engines.common.output": ("from_log", "from_page"),
    "engines.model.sizes": ("Quantization", "Recipe"),
    "harness.errors": ("BenchError", "Interrupted", "StoreError", "UserError"),
    "reports.data": ("Cell", "Run"),
    "reports.measures.metric": ("Metric", "Value"),
    "reports.two_runs.compare": ("Comparison",),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((each for each, names in _HOMES.items() if name in names), "harness.contracts")
    return getattr(import_module(f"serving_bench.{home}"), name)


def __dir__() -> list[str]:
    return __all__
