"""Metrics that only some scenarios or loads have, a file per topic. Draws nothing."""
