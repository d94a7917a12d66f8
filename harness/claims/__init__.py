"""Read published claims about engines from files, and judge them by a run."""
