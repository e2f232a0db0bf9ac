"""Induction heads: the step at which a small model learns to copy."""
