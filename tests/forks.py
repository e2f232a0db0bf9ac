"""Processes forked from one that has loaded torch, transformers and peft: loading takes seconds."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "hypothesis", "safetensors.numpy", "transformers", "peft"])


def run_module(module: str, arguments: list[str], folder: Path, log: Path) -> int | None:
    """Run a module as `python -m` does, in a forked process; return its exit code.

    What it prints is in `log`.
    """
    return _fork(_run_module, module, arguments, folder, log)


def _run_module(module: str, arguments: list[str], folder: Path, log: Path) -> None:
    os.chdir(folder)
    _print_to(log)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def run_pytest(arguments: list[str], folder: Path, env: Mapping[str, str], log: Path) -> int | None:
    """Run pytest in a forked process; return its exit code. What it prints is in `log`."""
    return _fork(_run_pytest, arguments, folder, dict(env), log)


def _run_pytest(arguments: list[str], folder: Path, env: dict[str, str], log: Path) -> None:
    sys.dont_write_bytecode = True  # PYTHONDONTWRITEBYTECODE is read at the start only
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    _print_to(log)
    sys.exit(pytest.main(arguments))


def _fork(target: Callable[..., None], *arguments: Any) -> int | None:
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def _print_to(log: Path) -> None:
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
