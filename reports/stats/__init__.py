"""Statistics: functions from numbers to numbers. Knows no run and no metric."""
