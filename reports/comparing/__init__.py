"""What may be said of two deployments of a run, and that they had the same work."""
