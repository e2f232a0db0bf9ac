"""Representation analysis: what the layers write, what of it matters, and what can be read."""
