"""Clustered means: the usual standard error for independent tokens, no smaller one for copies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.stats.tokens import token_mean

VALUES = st.lists(st.floats(-10, 10), min_size=2, max_size=40)


@given(VALUES)
def test_one_token_per_example_is_the_ordinary_standard_error(values):
    mean = token_mean(np.array(values), np.arange(len(values)))
    assert mean.n == len(values)
    assert mean.value == pytest.approx(np.mean(values), abs=1e-9)
    assert mean.stderr == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)), abs=1e-9)


@given(VALUES, st.integers(2, 5))
def test_copies_of_a_token_are_no_new_evidence(values, copies):
    once = token_mean(np.array(values), np.arange(len(values)))
    often = token_mean(np.repeat(values, copies), np.repeat(np.arange(len(values)), copies))
    assert often.value == pytest.approx(once.value, abs=1e-9)
    assert often.stderr == pytest.approx(once.stderr, abs=1e-9)


def test_the_standard_error_is_the_spread_of_repeated_draws():
    """Against simulation: examples of different length whose tokens share a common part."""
    draw = np.random.default_rng(0)
    means = []
    errors = []
    for _ in range(400):
        lengths = draw.integers(3, 20, 60)
        example_ids = np.repeat(np.arange(60), lengths)
        common = draw.normal(size=60)[example_ids]
        mean = token_mean(common + draw.normal(size=len(example_ids)), example_ids)
        means.append(mean.value)
        errors.append(mean.stderr)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
