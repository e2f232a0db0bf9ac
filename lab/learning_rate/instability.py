"""Instability of training: how far a loss climbs back, how often loss or gradient spikes."""

import numpy as np


def climbs(losses: np.ndarray) -> np.ndarray:
    """Return by how much each loss [T] is above the lowest one up to it: [T].

    loss_t − min_{s ≤ t} loss_s, which is 0 at a new minimum. Batches differ in difficulty, so even
    a run that learns nothing climbs. Subtract the loss of such a run on the same batches to remove
    this part; what remains still depends on how much a batch can gain.
    """
    heights: np.ndarray = losses - np.minimum.accumulate(losses)
    return heights


def instability(losses: np.ndarray) -> float:
    """Return the largest climb of losses [T], in their unit; 0 exactly if the loss never rises."""
    return float(climbs(losses).max())


def loss_spikes(losses: np.ndarray, height: float) -> int:
    """Return at how many steps the loss [T] is more than `height` above its lowest so far."""
    return int((climbs(losses) > height).sum())


def gradient_spikes(norms: np.ndarray, factor: float) -> int:
    """Return at how many steps the gradient norm [T] is over `factor` times the run's median."""
    return int((norms > factor * np.median(norms)).sum())
