"""The metrics, their values by start and over starts, and equal work. Draws nothing.

This file exports what many modules need. Each topic of its own has its own module.
"""

from reports.measures.equal_work import *
from reports.measures.metrics import *
from reports.measures.over_starts import *
from reports.measures.values import *
from reports.measures.written import *
