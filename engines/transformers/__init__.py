"""Transformers' generate behind a small server: the baseline."""
