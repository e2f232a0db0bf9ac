"""Arrays on disk: safetensors files as every experiment and its gate read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a safetensors file that everyone may read."""
    from safetensors.numpy import save_file

    # safetensors writes an array's memory as it is: of a transposed or strided one, other numbers
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    path.chmod(0o644)  # safetensors makes it private to its owner
