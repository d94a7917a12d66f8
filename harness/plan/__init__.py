"""Turn settings into the ordered starts and cells of a run, and say why others are skipped. Starts nothing."""
