"""Verdicts on deployments, decided once per run."""

from serving_bench.reports.verdicts.comparisons import *
from serving_bench.reports.verdicts.decisions import *
from serving_bench.reports.verdicts.load_cases import *
from serving_bench.reports.verdicts.pairs import *
from serving_bench.reports.verdicts.searches import *
