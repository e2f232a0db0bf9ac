"""Independent tasks at the same time, each in a process with threads of its own."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

# a function of a module and its arguments; both can be sent to a process
Task = tuple[Any, ...]


def run(tasks: Mapping[str, Task], *, workers: int, threads: int) -> dict[str, Any]:
    """Run each task, `workers` at a time (1: in this process); return name -> result, in order.

    The first error of a task is raised here, after the running ones have ended. A task's result
    does not depend on the number of workers: each task has `threads` threads, whatever runs at the
    same time.
    """
    if workers == 1:
        return {name: _run_task(threads, *task) for name, task in tasks.items()}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _enter, (threads,)) as pool:
        running = {name: pool.submit(*task) for name, task in tasks.items()}
        return {name: future.result() for name, future in running.items()}


def _enter(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _run_task(threads: int, work: Callable[..., Any], *arguments: Any) -> Any:
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return work(*arguments)
    finally:
        torch.set_num_threads(threads_before)
