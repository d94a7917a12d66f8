"""What may be said of deployments: decided once per run."""
