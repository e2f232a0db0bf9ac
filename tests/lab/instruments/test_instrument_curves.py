"""Curves: laws of smoothing; each detector on curves where it must fire and must not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.instruments import curves
from lab.instruments.curves import Curve, Thresholds

THRESHOLDS = Thresholds(beta=0.8, learnt=0.5, still=0.05, rise=0.2, fall=0.5, spike=2.0)
losses = st.lists(st.floats(0.01, 30), min_size=1, max_size=40)


def noisy(values: np.ndarray, size: float) -> list[float]:
    return (values + size * np.random.default_rng(0).standard_normal(len(values))).tolist()


def make_curve(training: np.ndarray, held_out: list[float], noise: float = 0.3) -> Curve:
    """Return a curve with batch noise on its training loss, held-out points evenly over steps."""
    steps = len(training)
    points = np.linspace(0, steps, len(held_out)).astype(int).tolist()
    return Curve(
        losses=noisy(training, noise),
        tokens=[40] * steps,
        held_out=list(zip(points, held_out, strict=True)),
    )


def falling(start: float, end: float, steps: int = 40) -> np.ndarray:
    return end + (start - end) * np.exp(-np.arange(steps) / (steps / 6))


CURVES = {
    "healthy": make_curve(falling(5, 2.5), [4.2, 3.0, 2.7, 2.6, 2.6]),
    "overfitting": make_curve(falling(5, 0.1), [4.2, 3.1, 3.0, 3.3, 3.8], noise=0.1),
    "diverging": make_curve(
        np.concatenate([falling(5, 4, 10), np.linspace(4, 12, 30)]), [4.2, 4.0, 7.0, 9.0, 11.0]
    ),
    "flat": make_curve(np.full(40, 4.9), [4.2, 4.21, 4.2, 4.19, 4.19]),
}


@pytest.mark.parametrize("shape", CURVES)
def test_on_each_shape_its_own_detector_fires_and_no_other(shape):
    assert curves.fired_detectors(CURVES[shape], THRESHOLDS) == (shape,)


def test_a_divergence_that_recovers_is_seen_and_batch_noise_is_not():
    """The end of the curve alone does not show it; noise of 0.5 nats per batch must not fire."""
    training = falling(5, 2.5)
    training[15:20] += 8
    assert "diverging" in curves.fired_detectors(
        make_curve(training, [4.2, 3.0, 6.0, 2.8, 2.6]), THRESHOLDS
    )
    assert "diverging" not in curves.fired_detectors(
        make_curve(falling(5, 2.5), [4.2, 3.0, 2.6], noise=0.5), THRESHOLDS
    )


def test_a_held_out_loss_that_rises_with_the_training_loss_is_not_overfitting():
    rising = np.concatenate([falling(5, 3, 20), np.linspace(3, 4, 20)])
    curve = make_curve(rising, [4.2, 3.0, 3.5, 3.9])
    assert not curves.is_overfitting(curve, THRESHOLDS)
    assert not curves.is_healthy(curve, THRESHOLDS)


def test_learning_too_little_is_neither_healthy_nor_flat():
    assert (
        curves.fired_detectors(make_curve(falling(5, 4.7), [4.2, 4.1, 4.0, 3.9]), THRESHOLDS) == ()
    )


def test_a_change_in_between_is_not_flat_though_the_ends_are_equal():
    assert not curves.is_flat(make_curve(np.full(40, 4.9), [4.2, 3.9, 4.2]), THRESHOLDS)


@given(losses, st.floats(0.1, 0.99))
def test_equal_counts_give_the_debiased_average(values, beta):
    mean, expected = 0.0, []
    for t, value in enumerate(values, start=1):
        mean = beta * mean + (1 - beta) * value
        expected.append(mean / (1 - beta**t))
    assert curves.smooth(values, [7] * len(values), beta) == pytest.approx(expected)


@given(losses, st.floats(0.1, 0.99), st.data())
def test_an_average_lies_among_what_it_averages(values, beta, data):
    counts = data.draw(st.lists(st.integers(1, 200), min_size=len(values), max_size=len(values)))
    means = curves.smooth(values, counts, beta)
    assert means[0] == pytest.approx(values[0])  # not biased to 0
    for t, mean in enumerate(means):
        assert min(values[: t + 1]) - 1e-9 <= mean <= max(values[: t + 1]) + 1e-9


def test_each_token_counts_the_same():
    """A batch of 30 tokens weighs three of 10: beta near 1 gives the plain mean over tokens."""
    means = curves.smooth([1.0, 5.0], [30, 10], beta=0.999999)
    assert means[-1] == pytest.approx((30 * 1 + 10 * 5) / 40, rel=1e-5)


@given(losses)
def test_largest_rise_is_that_of_some_pair(values):
    rises = []
    for i, earlier in enumerate(values):
        rises += [later - earlier for later in values[i:]]
    assert curves.largest_rise(np.array(values)) == pytest.approx(max(rises))


@pytest.mark.parametrize(
    ("losses", "tokens", "held_out"),
    [
        ([3.0, 2.0], [5, 5], [(1, 3.0), (2, 2.0)]),
        ([3.0, 2.0], [5, 5], [(0, 3.0)]),
        ([3.0], [5, 5], [(0, 3.0), (1, 2.0)]),
    ],
)
def test_a_curve_without_its_ends_is_refused(losses, tokens, held_out):
    with pytest.raises(ValueError, match="expected a count per step, and points from 0 to"):
        Curve(losses, tokens, held_out)


# Staircases

EPOCH = 8
difficulties = st.lists(st.floats(0.5, 8), min_size=EPOCH, max_size=EPOCH)


def repeated(difficulty: list[float], epochs: int) -> np.ndarray:
    return np.tile(difficulty, epochs)


@given(difficulties)
def test_a_staircase_is_all_steps_and_a_slope_is_half_of_them(difficulty):
    hard = repeated(difficulty, 5)
    stairs = hard * (1 - np.repeat(np.arange(5), EPOCH) / 5)
    slope = hard * (1 - np.arange(5 * EPOCH) / (5 * EPOCH))
    assert curves.staircase_share(stairs, hard, EPOCH).value == pytest.approx(1.0)
    assert curves.staircase_share(slope, hard, EPOCH).value == pytest.approx(0.5)


def test_falling_within_epochs_and_rising_between_them_is_the_opposite():
    # at a border up by 0.275
    saw = -np.tile(np.arange(EPOCH) / EPOCH, 5) - 0.6 * np.repeat(np.arange(5), EPOCH)
    share = curves.staircase_share(saw, np.ones(len(saw)), EPOCH)
    assert share.value == pytest.approx(0.1 / 0.6)
    assert share.n == 4


def test_what_does_not_fall_has_no_share():
    assert curves.staircase_share(np.arange(40.0), np.ones(40), EPOCH) is None


@pytest.mark.parametrize(("steps", "epoch"), [(16, 8), (20, 8), (30, 1)])
def test_too_few_epochs_have_no_stairs(steps, epoch):
    with pytest.raises(ValueError, match="expected whole epochs, at least three"):
        curves.staircase_share([1.0] * steps, [1.0] * steps, epoch)
