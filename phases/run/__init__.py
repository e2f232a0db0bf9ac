"""Run a phase up to its checkpoint."""
