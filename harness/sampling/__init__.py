"""Samples of the host and its devices, and whether the machine is fit to measure. Knows no server."""
