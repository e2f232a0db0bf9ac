"""Timed comparisons. Not tests: they judge this machine at this moment; `python -m tests.benchmarks` runs them."""
