"""The allocator: told to keep memory, it hands out the same pages again.

In a process of its own, as it stays so.
"""

import gc
import statistics
import subprocess
import sys
import weakref

import pytest

from lab.instruments import allocator

PROGRAM = """
import resource, sys, torch
from lab.instruments import allocator
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert allocator.keep_memory()
def step():
    for size in (5, 20, 31):
        parts = [torch.zeros(size * 2**20 // 4) for _ in range(8)]
        del parts
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> float:
    """Page faults of a step, the median of nine.

    The first ones fill the heap, and a block may find no gap once.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True
    )
    return statistics.median(int(line) for line in done.stdout.split())


def test_kept_memory_is_not_asked_for_again():
    assert faults("leave") > 5000, (
        "control: left alone, the kernel hands out the same 450 MB again and again"
    )
    assert faults("keep") < 100


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self):
        self.me = self
        self.watched = weakref.ref(self)


def test_a_loops_own_garbage_is_collected_and_nothing_stays_set_aside():
    gc.unfreeze()  # Python 3.12 sets a few hundred objects of its own aside at its start
    old = Ring().watched  # garbage already
    with allocator.collect_new_objects_only():
        assert old() is None
        assert gc.get_freeze_count() > 10_000, "control: the modules' objects are not visited"
        new = Ring().watched
        gc.collect()
        assert new() is None
    assert gc.get_freeze_count() == 0
    with pytest.raises(RuntimeError), allocator.collect_new_objects_only():
        raise RuntimeError
    assert gc.get_freeze_count() == 0
