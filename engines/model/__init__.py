"""What a model is: shape, weights, quantizations, files, hub, prices. Belongs to no engine."""
