"""The reference server, whose send times are known."""
