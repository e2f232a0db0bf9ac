"""Inputs in, one child process, outputs out."""
