"""Environments of engines and tools, and weights on disk."""
