"""Reasons to distrust a run. Each check is a function from a run to its findings."""
