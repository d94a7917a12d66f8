"""The results directory: its records and tables. Knows nothing of how they were measured."""
