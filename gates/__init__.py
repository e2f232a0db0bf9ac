"""The judges: one pytest file per feature, one exit gate per phase.

They import neither `lab` nor `phases`.
"""
