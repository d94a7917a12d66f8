"""Measure a run on the nodes of a Ray cluster, one repeat at a time on each."""
