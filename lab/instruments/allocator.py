"""The C library's allocator and Python's collector, told to leave a training loop in peace.

glibc hands freed memory back to the kernel, which gives it out again page by page, cleared: some
37,000 page faults a step, an eighth of its time on the machine where this was measured. A step
needs the same memory as the one before it.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
# bytes on top of the heap that are given back; the largest value the interface takes
_NEVER = 2**31 - 1
# a larger request is mapped, and given back, on its own; the largest value glibc takes
_LARGEST = 32 * 2**20


def keep_memory() -> bool:
    """Do so for the rest of the process; False, with nothing done, where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        (mallopt(_M_MMAP_THRESHOLD, _LARGEST), mallopt(_M_TRIM_THRESHOLD, _NEVER))
    )


@contextmanager
def nothing_old_collected() -> Iterator[None]:
    """Let Python's collector look at the loop's objects only, not at the half million before it.

    torch, transformers and the model's modules are gone through every few steps otherwise, a
    quarter of a second at a time. What is garbage before or in the loop is collected as ever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
