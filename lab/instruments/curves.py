"""Loss curves as numbers: smoothing without a pull to zero, detectors that name a curve's shape.

All functions are pure. A detector reads two series: the loss of each training batch, which is noisy
because every batch is another one, and the loss on a fixed held-out set, which is not. Its
thresholds are differences in nats per token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.stats.tokens import Mean, ratio


@dataclass(frozen=True)
class Curve:
    """One run. losses, tokens: per optimizer step, nats/token and supervised tokens of its batch.

    held_out: (steps done, nats/token), from (0, …) before the first step to (len(losses), …)
    after the last.
    """

    losses: Sequence[float]
    tokens: Sequence[float]
    held_out: Sequence[tuple[int, float]]

    def __post_init__(self) -> None:
        """Refuse a curve whose ends were not measured."""
        ends = [step for step, _ in self.held_out[:1]] + [step for step, _ in self.held_out[-1:]]
        if ends != [0, len(self.losses)] or len(self.tokens) != len(self.losses):
            msg = (
                f"a curve of {len(self.losses)} steps, {len(self.tokens)} token counts, held-out "
                "points from and to "
            )
            msg += f"{ends}; wanted a count per step, and points from 0 to {len(self.losses)}"
            raise ValueError(msg)

    @property
    def lowest(self) -> tuple[int, float]:
        """The held-out point with the lowest loss, the first of equals."""
        return min(self.held_out, key=lambda point: point[1])

    @property
    def end(self) -> float:
        """Held-out loss after the last step."""
        return self.held_out[-1][1]


@dataclass(frozen=True)
class Thresholds:
    """What counts as what. beta: of the smoothing; all others in nats/token.

    learnt: least fall of the held-out loss that is learning; still: largest change that is none;
    rise: held-out loss above its lowest point that is too much; fall: training loss below where it
    was at that point; spike: smoothed training loss above its running minimum that is divergence.
    """

    beta: float
    learnt: float
    still: float
    rise: float
    fall: float
    spike: float


def smoothed(losses: Sequence[float], tokens: Sequence[float], beta: float) -> np.ndarray:
    """Token-weighted exponential moving average [T], without the pull to its starting value.

    m_t = beta · m_{t−1} + (1 − beta) · x_t with m_0 = 0 begins near 0; dividing by 1 − beta^t takes
    this out (Kingma and Ba 2014, arXiv:1412.6980, section 3). Here loss sums and token counts are
    averaged alike and then divided: with equal counts this is the same correction, and with unequal
    ones every token counts the same.
    """
    above = below = 0.0
    means = []
    for loss, count in zip(losses, tokens, strict=True):
        above = beta * above + (1 - beta) * loss * count
        below = beta * below + (1 - beta) * count
        means.append(above / below)
    return np.array(means)


def largest_rise(values: np.ndarray) -> float:
    """The most by which a series [T] stands above the lowest value it has had.

    max_t (v_t − min_{s≤t} v_s).
    """
    return float((values - np.minimum.accumulate(values)).max())


def is_healthy(curve: Curve, limits: Thresholds) -> bool:
    """Say whether the run learnt and ended at, or almost at, its lowest held-out loss."""
    return (
        curve.held_out[0][1] - curve.end >= limits.learnt
        and curve.end - curve.lowest[1] < limits.rise
    )


def is_overfitting(curve: Curve, limits: Thresholds) -> bool:
    """Say whether the held-out loss rose from its lowest point while training loss kept falling."""
    steps, lowest = curve.lowest
    smooth = smoothed(curve.losses, curve.tokens, limits.beta)
    fall = smooth[max(steps, 1) - 1] - smooth[-1]
    return bool(curve.end - lowest >= limits.rise and fall >= limits.fall)


def is_diverging(curve: Curve, limits: Thresholds) -> bool:
    """Say whether the smoothed training loss went up again, for good or for a time."""
    return largest_rise(smoothed(curve.losses, curve.tokens, limits.beta)) >= limits.spike


def is_flat(curve: Curve, limits: Thresholds) -> bool:
    """Say whether the held-out loss stayed where it began, at every point."""
    start = curve.held_out[0][1]
    return max(abs(loss - start) for _, loss in curve.held_out) <= limits.still


DETECTORS: Mapping[str, Callable[[Curve, Thresholds], bool]] = {
    "healthy": is_healthy,
    "overfitting": is_overfitting,
    "diverging": is_diverging,
    "flat": is_flat,
}


def detected(curve: Curve, limits: Thresholds) -> tuple[str, ...]:
    """The names of all detectors that fire on a curve."""
    return tuple(name for name, fires in DETECTORS.items() if fires(curve, limits))


def staircase(losses: Sequence[float], before: Sequence[float], epoch: int) -> Mean | None:
    """Share of the fall, from the second epoch on, that happens between epochs and not within them.

    Args:
        losses: [T], of each step's batch.
        before: [T], of the same batch under the untrained model. Losses are divided by it, because
            some batches are harder. Subtracting would not do: a batch known by heart is at 0
            however hard it was, so hard ones fall more.
        epoch: steps per epoch, of which T holds at least three.

    A half of an epoch is set against the half before it: across a border (last half of epoch e,
    first half of e + 1) or within an epoch (first half of e, last half of e). A smooth fall gives
    0.5, a staircase 1: each batch is better at its next turn, while the batches of one epoch do not
    help each other. The standard error takes each border with the epoch after it as one unit. None
    where nothing falls after the first epoch: no share of it then.
    """
    left = np.asarray(losses, dtype=np.float64) / np.asarray(before, dtype=np.float64)
    epochs, half = len(left) // epoch, epoch // 2
    if epochs < 3 or half < 1 or len(left) % epoch:
        msg = (
            f"{len(left)} steps in epochs of {epoch}; wanted whole epochs, at least three, of "
            "two steps or more"
        )
        raise ValueError(msg)
    rows = left.reshape(epochs, epoch)
    first, last = rows[:, :half].mean(1), rows[:, -half:].mean(1)  # [E]
    between = last[:-1] - first[1:]  # [E − 1]
    within = first[1:] - last[1:]
    if (between + within).sum() <= 0:
        return None
    return ratio(between, between + within, np.arange(epochs - 1))
