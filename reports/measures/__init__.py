"""Metrics: a value per cell, its unit and where it comes from."""
