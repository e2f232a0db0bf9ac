"""Replay the whole record offline."""
