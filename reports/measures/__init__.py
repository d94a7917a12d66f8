"""A metric per row, its values by start and over starts, and equal work. Draws nothing.

Here is what many ask for. What one topic asks for is in a file of its own.
"""

from reports.measures.equal_work import *
from reports.measures.metrics import *
from reports.measures.over_starts import *
from reports.measures.values import *
from reports.measures.written import *
