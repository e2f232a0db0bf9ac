"""Independent pieces of work side by side, each on its own threads in a process of its own."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

# a function of a module, and what it is called with; both can be sent to a process
Task = tuple[Any, ...]


def run(tasks: Mapping[str, Task], *, workers: int, threads: int) -> dict[str, Any]:
    """Do each task, `workers` at a time (1: in this process); give name -> result, in their order.

    The first error of a task is raised here, after those that already run have ended. What a
    task gives does not depend on the number of workers: each has `threads` threads, whatever
    runs beside it.
    """
    if workers == 1:
        return {name: _one(threads, *task) for name, task in tasks.items()}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _enter, (threads,)) as pool:
        running = {name: pool.submit(*task) for name, task in tasks.items()}
        return {name: future.result() for name, future in running.items()}


def _enter(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _one(threads: int, work: Callable[..., Any], *given: Any) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return work(*given)
    finally:
        torch.set_num_threads(before)
