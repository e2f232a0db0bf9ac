"""Activation extraction: is what the extractor records the residual stream?"""
