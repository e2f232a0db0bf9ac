"""Attention views: maps of attention, each with its number, its control and a causal test."""
