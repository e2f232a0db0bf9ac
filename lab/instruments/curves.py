"""Loss curves as numbers: smoothing without a bias to zero, detectors that name a curve's shape.

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
    """The losses of one run.

    losses, tokens: per optimizer step, nats/token and supervised tokens of its batch; held_out:
    (steps done, nats/token), from (0, …) before the first step to (len(losses), …) after the last.
    """

    losses: Sequence[float]
    tokens: Sequence[float]
    held_out: Sequence[tuple[int, float]]

    def __post_init__(self) -> None:
        """Refuse a curve whose ends were not measured."""
        steps = len(self.losses)
        ends = [step for step, _ in (*self.held_out[:1], *self.held_out[-1:])]
        if ends != [0, steps] or len(self.tokens) != steps:
            msg = (
                f"got a curve of {steps} steps, {len(self.tokens)} token counts, held-out points "
                f"from and to {ends}; expected a count per step, and points from 0 to {steps}"
            )
            raise ValueError(msg)

    @property
    def start_loss(self) -> float:
        """Return the held-out loss before the first step."""
        return self.held_out[0][1]

    @property
    def final_loss(self) -> float:
        """Return the held-out loss after the last step."""
        return self.held_out[-1][1]

    @property
    def lowest_point(self) -> tuple[int, float]:
        """Return the held-out point with the lowest loss, the first of equals."""
        return min(self.held_out, key=lambda point: point[1])


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of the detectors. beta: of the smoothing; all others in nats/token.

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


def smooth(losses: Sequence[float], tokens: Sequence[float], beta: float) -> np.ndarray:
    """Return the token-weighted exponential moving average [T], not biased to its start at zero.

    m_t = beta · m_{t-1} + (1 - beta) · x_t with m_0 = 0 begins near 0; dividing by 1 - beta^t takes
    this out (Kingma and Ba 2014, arXiv:1412.6980, section 3). Here loss sums and token counts are
    averaged alike and then divided: with equal counts this is the same correction, and with unequal
    ones every token counts the same.
    """
    loss_sum = 0.0
    token_sum = 0.0
    means = []
    for loss, count in zip(losses, tokens, strict=True):
        loss_sum = beta * loss_sum + (1 - beta) * loss * count
        token_sum = beta * token_sum + (1 - beta) * count
        means.append(loss_sum / token_sum)
    return np.array(means)


def largest_rise(values: np.ndarray) -> float:
    """Return the most by which a series [T] exceeds the lowest value it has had.

    max_t (v_t - min_{s≤t} v_s).
    """
    return float((values - np.minimum.accumulate(values)).max())


def is_healthy(curve: Curve, thresholds: Thresholds) -> bool:
    """Return whether the run learned and ended at, or almost at, its lowest held-out loss."""
    _, lowest_loss = curve.lowest_point
    has_learned = curve.start_loss - curve.final_loss >= thresholds.learnt
    return has_learned and curve.final_loss - lowest_loss < thresholds.rise


def is_overfitting(curve: Curve, thresholds: Thresholds) -> bool:
    """Return whether the held-out loss rose from its lowest point while training loss fell on."""
    lowest_step, lowest_loss = curve.lowest_point
    smoothed = smooth(curve.losses, curve.tokens, thresholds.beta)
    # smoothed[t - 1] is the training loss after t steps; before the first step there is none
    training_fall = smoothed[max(lowest_step, 1) - 1] - smoothed[-1]
    held_out_rise = curve.final_loss - lowest_loss
    return bool(held_out_rise >= thresholds.rise and training_fall >= thresholds.fall)


def is_diverging(curve: Curve, thresholds: Thresholds) -> bool:
    """Return whether the smoothed training loss rose, for good or for a time."""
    smoothed = smooth(curve.losses, curve.tokens, thresholds.beta)
    return largest_rise(smoothed) >= thresholds.spike


def is_flat(curve: Curve, thresholds: Thresholds) -> bool:
    """Return whether the held-out loss remained where it began, at every point."""
    largest_change = max(abs(loss - curve.start_loss) for _, loss in curve.held_out)
    return largest_change <= thresholds.still


DETECTORS: Mapping[str, Callable[[Curve, Thresholds], bool]] = {
    "healthy": is_healthy,
    "overfitting": is_overfitting,
    "diverging": is_diverging,
    "flat": is_flat,
}


def fired_detectors(curve: Curve, thresholds: Thresholds) -> tuple[str, ...]:
    """Return the names of all detectors that fire on a curve."""
    return tuple(name for name, fires in DETECTORS.items() if fires(curve, thresholds))


def staircase_share(
    losses: Sequence[float], base_losses: Sequence[float], epoch: int
) -> Mean | None:
    """Return the share of the fall, from the second epoch on, that happens between epochs.

    A half of an epoch is compared with the half before it: across a border (last half of epoch e,
    first half of e + 1) or within an epoch (first half of e, last half of e). A smooth fall gives
    0.5, a staircase 1: each batch is better at its next turn, while the batches of one epoch do not
    help each other. The standard error takes each border with the epoch after it as one unit. None
    where nothing falls after the first epoch: it has no share then.

    Args:
        losses: [T], of each step's batch.
        base_losses: [T], of the same batch under the untrained model. Losses are divided by it,
            because some batches are harder. Subtraction would be biased: a memorised batch has a
            loss of 0 however hard it was, so hard ones fall more.
        epoch: steps per epoch; T is at least three epochs.

    Raises:
        ValueError: T is not a whole number of epochs, at least three, of two steps or more.
    """
    relative = np.asarray(losses, dtype=np.float64) / np.asarray(base_losses, dtype=np.float64)
    epochs = len(relative) // epoch
    half = epoch // 2
    if epochs < 3 or half < 1 or len(relative) % epoch:
        msg = (
            f"got {len(relative)} steps in epochs of {epoch}; expected whole epochs, at least "
            "three, of two steps or more"
        )
        raise ValueError(msg)
    rows = relative.reshape(epochs, epoch)  # [T] -> [E, steps per epoch]
    first_half = rows[:, :half].mean(1)  # [E]
    last_half = rows[:, -half:].mean(1)  # [E]
    between = last_half[:-1] - first_half[1:]  # [E - 1], across each border
    within = first_half[1:] - last_half[1:]  # [E - 1], in the epoch after it
    if (between + within).sum() <= 0:
        return None
    return ratio(between, between + within, np.arange(epochs - 1))
