"""Instability: 0 where the loss falls, the largest climb where it rises, without the batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.learning_rate.instability import climbs, gradient_spikes, instability, loss_spikes

LOSSES = st.lists(st.floats(0, 10), min_size=1, max_size=30).map(np.array)


@given(LOSSES)
def test_a_falling_loss_is_stable(losses):
    falling = np.sort(losses)[::-1]
    assert instability(falling) == 0.0
    assert loss_spikes(falling, 0.0) == 0


@given(LOSSES)
def test_it_is_the_largest_rise_between_any_two_steps(losses):
    rises = [losses[t] - losses[s] for t in range(len(losses)) for s in range(t + 1)]
    assert instability(losses) == pytest.approx(max(rises))
    assert (climbs(losses) >= 0).all()


@given(LOSSES, st.floats(-5, 5))
def test_the_level_of_the_loss_does_not_count(losses, level):
    assert instability(losses + level) == pytest.approx(instability(losses), abs=1e-9)


def test_a_run_that_diverges_is_seen():
    losses = np.array([4.0, 3.0, 2.0, 2.5, 6.0, 8.0])
    assert instability(losses) == 6.0
    assert loss_spikes(losses, 0.4) == 3
    assert loss_spikes(losses, 1.0) == 2


def test_batches_alone_make_an_instability_that_the_difference_does_not_have():
    batches = np.random.default_rng(0).normal(0, 0.3, 20)
    healthy = 4 - 0.05 * np.arange(20)
    assert instability(healthy + batches) > 0.3
    assert instability((healthy + batches) - (4.0 + batches)) == pytest.approx(0, abs=1e-9)


def test_a_gradient_spike_is_relative_to_the_run():
    norms = np.array([1.0, 1.2, 0.9, 1.1, 30.0])
    assert gradient_spikes(norms, 10) == gradient_spikes(1000 * norms, 10) == 1
    assert gradient_spikes(norms, 100) == 0
    assert gradient_spikes(np.ones(5), 1) == 0
