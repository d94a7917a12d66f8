"""Describe the traffic of a plan before anything is measured: what would be sent, and what of it again."""
