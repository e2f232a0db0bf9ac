"""Attention extraction: what the extractor records, held against what the model computes."""
