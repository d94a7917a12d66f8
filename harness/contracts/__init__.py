"""The types that cross a boundary between folders, and the rules that both sides keep.

Imports the standard library only. Names carry their units: `_ns` is an instant on CLOCK_MONOTONIC, `_s` a
duration in seconds, `_bytes` a size. A value that is not known is None, never 0.
"""

from serving_bench.harness.contracts.deployments import *
from serving_bench.harness.contracts.engines import *
from serving_bench.harness.contracts.facts import *
from serving_bench.harness.contracts.fitness import *
from serving_bench.harness.contracts.goals import *
from serving_bench.harness.contracts.keys import *
from serving_bench.harness.contracts.plans import *
from serving_bench.harness.contracts.quality import *
from serving_bench.harness.contracts.records import *
from serving_bench.harness.contracts.scenarios import *
from serving_bench.harness.contracts.secrets import *
from serving_bench.harness.contracts.sentences import Fact as Fact
from serving_bench.harness.contracts.sentences import Reason as Reason
from serving_bench.harness.contracts.sentences import because as because
from serving_bench.harness.contracts.sentences import plural as plural
from serving_bench.harness.contracts.sentences import quoted as quoted
from serving_bench.harness.contracts.sentences import sentence as sentence
from serving_bench.harness.contracts.servers import *
