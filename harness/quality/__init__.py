"""How well a deployment answers, asked of its running server after the load (`quality.*`)."""
