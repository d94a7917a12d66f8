"""Run a plan: bring up each start in turn, measure and store its cells. Knows no terminal."""
