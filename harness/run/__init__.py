"""Runs a plan: each start in turn, its cells measured and stored. Knows no terminal."""
