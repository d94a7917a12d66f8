"""Describe the traffic of a plan: what would be sent, and what of it an ideal prefix cache could serve."""
