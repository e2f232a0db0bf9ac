"""Work side by side: the same results in one process or several, errors reach the one who asked."""

import math
import os

import pytest
import torch

from lab.instruments import aside


def test_workers_do_not_change_what_is_found():
    tasks = {
        "root": (math.sqrt, 16.0),
        "sum": (math.fsum, (1.0, 2.0)),
        "threads": (torch.get_num_threads,),
    }
    alone, beside = (aside.run(tasks, workers=workers, threads=1) for workers in (1, 2))
    assert alone == beside == {"root": 4.0, "sum": 3.0, "threads": 1}
    assert list(beside) == list(tasks)


def test_several_workers_are_other_processes():
    assert aside.run({"a": (os.getpid,)}, workers=1, threads=1)["a"] == os.getpid()
    assert aside.run({"a": (os.getpid,)}, workers=2, threads=1)["a"] != os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_is_raised(workers):
    with pytest.raises(ValueError, match="math domain"):
        aside.run({"a": (math.sqrt, 1.0), "b": (math.sqrt, -1.0)}, workers=workers, threads=1)
