"""A results directory as frames and records, and the commands that continue its run. Computes no metric."""

from serving_bench.harness.store.store import StartRecord as StartRecord
from serving_bench.harness.store.store import phase_of as phase_of
from serving_bench.reports.data.asked import *
from serving_bench.reports.data.cells import *
from serving_bench.reports.data.commands import *
from serving_bench.reports.data.run import *
from serving_bench.reports.data.samples import *
from serving_bench.reports.data.tables import *
