"""The allocator: told to keep memory, it hands out the same pages again. In a process of its own, as it stays so."""

import statistics
import subprocess
import sys

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
    """Page faults of a step, the median of nine: the first ones fill the heap, and a block may find no gap once."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True)
    return statistics.median(int(line) for line in done.stdout.split())


def test_kept_memory_is_not_asked_for_again():
    assert faults("leave") > 5000, "control: left alone, the kernel hands out the same 450 MB again and again"
    assert faults("keep") < 100
