"""The results directory: records, tables, and files written whole. Knows nothing of how they were
measured."""
