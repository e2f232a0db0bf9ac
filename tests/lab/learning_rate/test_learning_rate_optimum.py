"""The formula's rate and the parabola's vertex: known values, laws, cases without a minimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.learning_rate.optimum import formula_rate, vertex


def test_the_default_model_has_the_known_rate():
    assert formula_rate("llama", 576) == pytest.approx(1.322e-3, rel=1e-3)


@pytest.mark.parametrize(("hidden", "rate"), [(2000, 5e-4), (896, 5.32e-4), (3584, 4.78e-4)])
def test_qwen_hardly_depends_on_the_width(hidden, rate):
    assert formula_rate("qwen2", hidden) == pytest.approx(rate, rel=5e-3)


def test_a_family_that_was_not_fitted_has_no_rate():
    assert formula_rate("gpt2", 768) is None


@given(st.floats(-4, -2), st.floats(0.05, 5), st.floats(2, 5), st.floats(0.2, 2), st.floats(0.2, 2))
def test_the_vertex_of_a_parabola_is_found_wherever_its_points_are(
    lowest, curvature, height, left_gap, right_gap
):
    x = [-3.0 - left_gap, -3.0, -3.0 + right_gap]
    y = [height + curvature * (value - lowest) ** 2 for value in x]
    assert vertex(x, y) == pytest.approx(lowest, abs=1e-6)


def test_it_is_numpys_fit():
    x = np.log10([2e-4, 1e-3, 5e-3])
    y = [3.31, 2.94, 3.05]
    a, b, _ = np.polyfit(x, y, 2)
    assert vertex(x, y) == pytest.approx(-b / (2 * a))


@pytest.mark.parametrize("y", [[1.0, 2.0, 1.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
def test_what_does_not_bend_upwards_has_no_lowest_point(y):
    assert vertex([0.0, 1.0, 2.0], y) is None


def test_points_that_fall_throughout_have_their_vertex_outside():
    assert vertex([0.0, 1.0, 2.0], [3.0, 2.0, 1.5]) == pytest.approx(2.5)
