"""Everything that calls git."""
