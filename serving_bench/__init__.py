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
        Reason,
        Said,
        Scenario,
        ScenarioOptions,
        Turn,
        Weights,
        key,
    )
    from serving_bench.harness.errors import BenchError, StoreError, UserError

_API = ("Report", "compare", "open_run", "plan", "run")
_ERRORS = ("BenchError", "StoreError", "UserError")
__all__ = [
    "BenchError", "Conversation", "Deployment", "Engine", "InstallSpec", "LaunchSpec", "Message",
    "NativeSpec", "Place", "Reason", "Report", "Said", "Scenario", "ScenarioOptions", "StoreError", "Turn",
    "UserError", "Weights", "compare", "key", "open_run", "plan", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "api" if name in _API else "harness.errors" if name in _ERRORS else "harness.contracts"
    return getattr(import_module(f"serving_bench.{home}"), name)
