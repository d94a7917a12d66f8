"""Read what the user asks for: overrides, units, study files, and typed settings. Knows no plan."""
