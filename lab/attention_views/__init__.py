"""Attention views: maps, head grids and a page, each with a number, a control, a causal test."""
