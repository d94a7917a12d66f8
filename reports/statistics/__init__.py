"""Numbers from numbers: intervals, drift, steadiness. Knows no run."""
