"""What the user asks for: the grammar of overrides, units, study files, and typed settings. Knows no plan."""
