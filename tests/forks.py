"""Processes forked from one that has loaded torch, transformers and peft: loading takes seconds."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "torch", "transformers", "peft"])
