"""The types that cross a boundary between folders, and the rules that both sides of one keep.

Such rules are what a secret is, what a latency counts from (timing.py), what throttles a device, and mean
power by a counter. There is no other behaviour. Imports the standard library only.

Names carry their units: `_ns` is an instant on CLOCK_MONOTONIC, `_s` a duration in seconds, `_bytes` a size.
A value that is not known is None, never 0.
"""

from harness.contracts.deployments import (
    METRICS_PATH,
    AttachSpec,
    CacheReset,
    ContainerSpec,
    Deployment,
    EngineTerms,
    Fairness,
    HttpCall,
    InstallSpec,
    KnownFacts,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    NativeSpec,
    Place,
    ServerMetric,
    ServerTerm,
    Weights,
    WeightsFile,
)
from harness.contracts.engines import Engine, Hint, Said, Stage, Tuned
from harness.contracts.fitness import (
    FOREIGN_SHARE,
    LOOK_S,
    GuardFinding,
    GuardMode,
    GuardTerms,
    SelfTest,
    SelfTestStep,
    Unfit,
    counter_fell,
    mean_power_w,
    throttle_names,
)
from harness.contracts.goals import (
    COMPARED_METRICS,
    SUCCESS,
    ApiPrice,
    CompareTerms,
    GateTerms,
    Objective,
    Price,
    SearchTerms,
    Until,
)
from harness.contracts.plans import (
    FEWEST_REQUESTS,
    LAST_REQUESTS,
    Arrival,
    Conversation,
    Load,
    Message,
    Plan,
    PlannedCell,
    PlannedStart,
    Precision,
    Scenario,
    ScenarioChoice,
    ScenarioOptions,
    Skip,
    Turn,
)
from harness.contracts.records import (
    BegunRow,
    CellStatus,
    EndedBy,
    LoadJob,
    LoadSummary,
    Outcome,
    Reason,
    RequestRow,
    RunStatus,
    Scalar,
    StartStatus,
    Validity,
    WorkerSummary,
)
from harness.contracts.secrets import MASK, is_secret, masked, masked_argv, masked_values
