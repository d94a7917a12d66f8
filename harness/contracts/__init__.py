"""The types that cross a boundary between folders, and the rules that both sides of one keep: what a secret
is, what throttles a device, mean power by a counter. Standard library only; no other behaviour.

Names carry their units: `_ns` is an instant on CLOCK_MONOTONIC, `_s` a duration in seconds, `_bytes` a size.
A value that is not known is None, never 0.
"""

from harness.contracts.caches import CacheReset, HttpCall
from harness.contracts.deployments import (
    AttachSpec,
    ContainerSpec,
    Deployment,
    EngineTerms,
    Fairness,
    InstallSpec,
    Launcher,
    LaunchSpec,
    ModelFacts,
    NativeSpec,
    Place,
    Weights,
    WeightsFile,
)
from harness.contracts.devices import throttle_names
from harness.contracts.energy import counter_fell, mean_power_w
from harness.contracts.engines import Engine, Hint, Said, Stage, Tuned
from harness.contracts.goals import (
    COMPARED_METRICS,
    SUCCESS,
    CompareTerms,
    GateTerms,
    Objective,
    SearchTerms,
    Until,
)
from harness.contracts.guards import FOREIGN_SHARE, LOOK_S, GuardFinding, GuardMode, GuardTerms, Unfit
from harness.contracts.loads import FEWEST_REQUESTS, LAST_REQUESTS, Arrival, Load
from harness.contracts.memory import METRICS_PATH, MemoryNeed, MemoryPart, ServerMetric, ServerTerm
from harness.contracts.plans import Plan, PlannedCell, PlannedStart, Precision, Skip
from harness.contracts.prices import ApiPrice, Price
from harness.contracts.records import BegunRow, LoadJob, LoadSummary, RequestRow, WorkerSummary
from harness.contracts.scenarios import Conversation, Message, Scenario, ScenarioChoice, ScenarioOptions, Turn
from harness.contracts.secrets import MASK, is_secret, masked, masked_argv, masked_environment, masked_values
from harness.contracts.selftests import SelfTest, SelfTestStep
from harness.contracts.words import (
    CellStatus,
    EndedBy,
    Outcome,
    Reason,
    RunStatus,
    Scalar,
    StartStatus,
    Validity,
)

__all__ = [
    "COMPARED_METRICS",
    "FEWEST_REQUESTS",
    "FOREIGN_SHARE",
    "LAST_REQUESTS",
    "LOOK_S",
    "MASK",
    "METRICS_PATH",
    "SUCCESS",
    "ApiPrice",
    "Arrival",
    "AttachSpec",
    "BegunRow",
    "CacheReset",
    "CellStatus",
    "CompareTerms",
    "ContainerSpec",
    "Conversation",
    "Deployment",
    "EndedBy",
    "Engine",
    "EngineTerms",
    "Fairness",
    "GateTerms",
    "GuardFinding",
    "GuardMode",
    "GuardTerms",
    "Hint",
    "HttpCall",
    "InstallSpec",
    "LaunchSpec",
    "Launcher",
    "Load",
    "LoadJob",
    "LoadSummary",
    "MemoryNeed",
    "MemoryPart",
    "Message",
    "ModelFacts",
    "NativeSpec",
    "Objective",
    "Outcome",
    "Place",
    "Plan",
    "PlannedCell",
    "PlannedStart",
    "Precision",
    "Price",
    "Reason",
    "RequestRow",
    "RunStatus",
    "Said",
    "Scalar",
    "Scenario",
    "ScenarioChoice",
    "ScenarioOptions",
    "SearchTerms",
    "SelfTest",
    "SelfTestStep",
    "ServerMetric",
    "ServerTerm",
    "Skip",
    "Stage",
    "StartStatus",
    "Tuned",
    "Turn",
    "Unfit",
    "Until",
    "Validity",
    "Weights",
    "WeightsFile",
    "WorkerSummary",
    "counter_fell",
    "is_secret",
    "masked",
    "masked_argv",
    "masked_environment",
    "masked_values",
    "mean_power_w",
    "throttle_names",
]
