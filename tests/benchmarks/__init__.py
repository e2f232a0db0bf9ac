"""Timed comparisons; `python -m tests.benchmarks` runs them.

Not tests: they judge this machine at this moment.
"""
