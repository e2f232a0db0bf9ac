"""Everything that touches git."""
