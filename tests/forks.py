"""Processes forked from one that has loaded torch, transformers and peft: loading takes seconds."""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "hypothesis", "safetensors.numpy", "transformers", "peft"])


def run_pytest(arguments: list[str], folder: Path, env: Mapping[str, str], log: Path) -> int | None:
    """Run pytest in a forked process; return its exit code. What it prints is in `log`."""
    process = FORKS.Process(target=_run_pytest, args=(arguments, folder, dict(env), log))
    process.start()
    process.join()
    return process.exitcode


def _run_pytest(arguments: list[str], folder: Path, env: dict[str, str], log: Path) -> None:
    sys.dont_write_bytecode = True  # PYTHONDONTWRITEBYTECODE is read at the start only
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.exit(pytest.main(arguments))
