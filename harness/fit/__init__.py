"""Compute the memory that a model needs, before anything is downloaded."""
