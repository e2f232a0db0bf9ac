"""Synthesis: what a whole track found, asked as questions and held against what was predicted."""
