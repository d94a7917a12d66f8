"""Turn settings into the ordered starts and cells of a run; say what is skipped and why. Starts nothing."""
