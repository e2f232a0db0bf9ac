"""A phase-runner with verification gates.

It reads a plan of phases and features, runs each feature's experiment in a child process, has its
gate judge the outputs (and tests that the gate can fail), appends to a hash-chained `progress.txt`,
commits, and halts for a human's approval between phases. It knows nothing of machine learning.
"""

__version__ = "0.1.0"
