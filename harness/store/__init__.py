"""Read and write the results directory: records and tables. Knows nothing of how they were measured."""
