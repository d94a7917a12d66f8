"""Sample the host and its devices, and judge whether the machine is fit to measure. Knows no server."""
