"""Ask a running server, after its load, how well it answers (`quality.*`)."""
