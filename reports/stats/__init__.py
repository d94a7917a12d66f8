"""Numbers from numbers. Knows no run and no metric."""
