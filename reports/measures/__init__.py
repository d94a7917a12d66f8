"""The metrics, their values by start and over starts, and equal work. Draws nothing.

This file exports what many modules need. Each topic of its own has its own module.
"""

from serving_bench.reports.measures.equal_work import *
from serving_bench.reports.measures.metrics import *
from serving_bench.reports.measures.over_starts import *
from serving_bench.reports.measures.values import *
from serving_bench.reports.measures.written import *
