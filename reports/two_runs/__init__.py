"""`bench compare` and `bench gate`: the deployments of one run beside those of another."""
