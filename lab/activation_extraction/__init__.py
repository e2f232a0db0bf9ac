"""Activation extraction: what the extractor records of the residual stream, and that it is right."""
