"""Describe models: shape, weights, quantizations, files, hub, prices. Belongs to no engine."""
