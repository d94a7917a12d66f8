"""A results directory as frames and records, and the commands that continue its run. Computes no metric."""

from harness.store.store import StartRecord as StartRecord
from reports.data.asked import *
from reports.data.cells import *
from reports.data.commands import *
from reports.data.run import *
from reports.data.samples import *
from reports.data.tables import *
