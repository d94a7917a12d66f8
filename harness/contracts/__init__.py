"""The types that cross a boundary between folders, and the rules that both sides keep.

Imports the standard library only. Names carry their units: `_ns` is an instant on CLOCK_MONOTONIC, `_s` a
duration in seconds, `_bytes` a size. A value that is not known is None, never 0.
"""

from harness.contracts.deployments import *
from harness.contracts.engines import *
from harness.contracts.facts import *
from harness.contracts.fitness import *
from harness.contracts.goals import *
from harness.contracts.keys import *
from harness.contracts.plans import *
from harness.contracts.quality import *
from harness.contracts.records import *
from harness.contracts.scenarios import *
from harness.contracts.secrets import *
from harness.contracts.sentences import Fact as Fact
from harness.contracts.sentences import because as because
from harness.contracts.sentences import plural as plural
from harness.contracts.sentences import quoted as quoted
from harness.contracts.sentences import sentence as sentence
from harness.contracts.servers import *
