"""Run a gate, and prove that it can fail."""
