"""From settings to the ordered starts and cells of a run, and what is skipped and why. Starts nothing."""
