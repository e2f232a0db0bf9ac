"""Quantisation: known errors on a Gaussian, none on the type's own grid, bits by stored bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.instruments import models, quantisation


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_gaussian_has_the_known_errors():
    weight = gaussian(512, 512)
    nf4, fp4 = (quantisation.relative_error(weight, kind) for kind in ("nf4", "fp4"))
    assert nf4 == pytest.approx(0.092, abs=0.002)
    assert fp4 == pytest.approx(0.122, abs=0.002)
    assert abs(quantisation.relative_error(weight, "nf4", double_quant=False) - nf4) < 5e-4


def test_weights_that_are_on_the_grid_already_lose_nothing():
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    once = dequantize_4bit(*quantize_4bit(gaussian(128, 128), blocksize=64, quant_type="nf4"))
    assert quantisation.relative_error(once, "nf4", double_quant=False) < 1e-6
    assert quantisation.relative_error(once, "fp4", double_quant=False) > 0.05


@given(st.floats(1e-3, 1e3))
def test_the_error_does_not_depend_on_the_scale(factor):
    weight = gaussian(64, 64)
    plain = quantisation.relative_error(weight, "nf4", double_quant=False)
    assert quantisation.relative_error(weight * factor, "nf4", double_quant=False) == pytest.approx(
        plain, rel=1e-4
    )


def test_distinct_values_tell_a_grid_from_none():
    assert quantisation.distinct_per_block(gaussian(64, 64)) == 32
    grid = torch.randint(0, 16, (64, 64), generator=torch.Generator().manual_seed(0)).float()
    assert 12 < quantisation.distinct_per_block(grid) <= 16
    assert quantisation.distinct_per_block(torch.ones(4, 64)) == 1


def test_bits_are_those_of_the_stored_tensors(tiny_folder):
    double = models.load(tiny_folder, dtype=torch.float32, quantisation="nf4")
    single = models.load(tiny_folder, dtype=torch.float32, quantisation="nf4", double_quant=False)
    assert quantisation.bits_per_parameter(single.model) == 4.5
    # the paper's 4 + 8/64 + 32/(64·256) = 4.127, a little more where a small matrix does not fill
    # its last block
    assert 4.127 <= quantisation.bits_per_parameter(double.model) < 4.14


def test_weighing_gives_one_row_per_matrix():
    found = quantisation.quantisation_error([gaussian(64, 64), 3 * gaussian(64, 128, seed=1)])
    assert found["size"].tolist() == [4096, 8192]
    assert found["squared_norm"] == pytest.approx([4096, 9 * 8192], rel=0.1)
    assert (found["nf4_error"] < found["fp4_error"]).all()
    assert found["distinct_values"].tolist() == [32, 32]
