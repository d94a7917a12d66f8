"""Reasons to distrust a run: one function each, from a run to its findings."""
