"""One stored array against the same array computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lab.digests import sha256
from lab.replay import read_stored
from lab.synthesis.reproduction.measured import ComparedRow, Outcome


def compare(
    described: dict[str, Any], recomputed: np.ndarray, outputs: Path, *, is_same_machine: bool
) -> ComparedRow:
    """Return a row of a replay, compared with what the feature stored.

    Args:
        described: the row as `lab.replay.write_rows` writes it.
        recomputed: its array.
        outputs: of the feature.
        is_same_machine: whether this is the machine of the receipt, with the same libraries.
    """
    stored = read_stored(outputs, described["file"], described["part"], described["indices"])
    is_promised = described["is_deterministic"] and is_same_machine
    apart = difference(stored, recomputed)
    if are_equal(stored, recomputed):
        outcome = Outcome.EQUAL
    elif not is_promised and apart <= described["tolerance"]:
        outcome = Outcome.WITHIN
    else:
        outcome = Outcome.DIFFERENT
    return ComparedRow(
        **described,
        values=int(recomputed.size),
        is_promised=is_promised,
        difference=apart,
        outcome=outcome,
        stored_sha256=sha256(stored.tobytes()),
        recomputed_sha256=sha256(recomputed.tobytes()),
    )


def are_equal(stored: np.ndarray, recomputed: np.ndarray) -> bool:
    """Return whether two arrays have the same shape, type and bits."""
    same_kind = stored.dtype == recomputed.dtype and stored.shape == recomputed.shape
    return same_kind and stored.tobytes() == recomputed.tobytes()


def difference(stored: np.ndarray, recomputed: np.ndarray) -> float:
    """Return how far two arrays are apart, from 0.

    Of floats: the largest difference, relative to the largest value of both, so that a factor f is
    1 - 1/f. Of whole numbers and bytes: the share that differs. 1 for another shape, and where one
    has a value that is not finite.
    """
    if are_equal(stored, recomputed):
        return 0.0
    if stored.shape != recomputed.shape:
        return 1.0
    if stored.dtype.kind != "f":
        return float(np.mean(stored != recomputed))
    a, b = stored.astype(np.float64), recomputed.astype(np.float64)
    largest = max(np.abs(a).max(), np.abs(b).max())
    apart = np.abs(a - b).max()
    if not np.isfinite(apart) or largest == 0:
        return 1.0
    return float(apart / largest)
