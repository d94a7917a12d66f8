"""A run over the nodes of a Ray cluster, a repeat on each: what the driver does, and what a node does."""
