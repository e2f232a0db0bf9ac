"""What is unstable in training: how far a loss climbs back, how often loss or gradient spikes."""

import numpy as np


def climbs(losses: np.ndarray) -> np.ndarray:
    """By how much each loss [T] lies above the lowest one up to it.

    loss_t − min_{s ≤ t} loss_s, which is 0 at a new minimum. Batches differ in difficulty, so even
    a run that learns nothing climbs. Taken of the difference from such a run on the same batches,
    this part is gone; that batches differ in how much they can gain is not.
    """
    return losses - np.minimum.accumulate(losses)


def instability(losses: np.ndarray) -> float:
    """The largest climb of losses [T], in their unit; 0 exactly where the loss never rises."""
    return float(climbs(losses).max())


def loss_spikes(losses: np.ndarray, height: float) -> int:
    """The number of steps at which the loss [T] is more than `height` above its lowest so far."""
    return int((climbs(losses) > height).sum())


def gradient_spikes(norms: np.ndarray, factor: float) -> int:
    """The number of steps whose gradient norm [T] is more than `factor` times the run's median."""
    return int((norms > factor * np.median(norms)).sum())
