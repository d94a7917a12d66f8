"""Which engine, at which quantization, should serve your language model on your device.

`run`, `plan`, `open_run` and `compare` do what the commands do (docs/python.md). The rest is what an engine
or a scenario of another package is made of (docs/adding.md). Each is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving_bench.api import Report, compare, open_run, plan, run
    from serving_bench.harness.contracts import (
        Conversation,
        Deployment,
        Engine,
        InstallSpec,
        LaunchSpec,
        Message,
        NativeSpec,
        Place,
        Plan,
        Reason,
        Said,
        Scenario,
        ScenarioOptions,
        Turn,
        Weights,
        key,
    )
    from serving_bench.harness.errors import BenchError, Interrupted, StoreError, UserError
    from serving_bench.reports import Comparison

_API = ("Report", "compare", "open_run", "plan", "run")
_ERRORS = ("BenchError", "Interrupted", "StoreError", "UserError")
__all__ = [
    "BenchError", "Comparison", "Conversation", "Deployment", "Engine", "InstallSpec", "Interrupted",
    "LaunchSpec", "Message", "NativeSpec", "Place", "Plan", "Reason", "Report", "Said", "Scenario",
    "ScenarioOptions", "StoreError", "Turn", "UserError", "Weights", "compare", "key", "open_run", "plan",
    "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {
        **dict.fromkeys(_API, "api"),
        **dict.fromkeys(_ERRORS, "harness.errors"),
        "Comparison": "reports",
    }
    home = homes.get(name, "harness.contracts")
    return getattr(import_module(f"serving_bench.{home}"), name)


def __dir__() -> list[str]:
    return __all__
