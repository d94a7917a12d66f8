"""Verdicts on deployments, decided once per run."""

from reports.verdicts.comparisons import *
from reports.verdicts.decisions import *
from reports.verdicts.load_cases import *
from reports.verdicts.pairs import *
from reports.verdicts.searches import *
