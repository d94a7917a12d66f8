"""The results directory as frames. Computes no metric."""

from reports.data.cells import *
from reports.data.run import *
from reports.data.samples import *
from reports.data.tables import *
