"""CKA: 1 of a rotated copy, its small-sample value of independent rows; outliers are found."""

import pytest
import torch

from lab.instruments.similarity import (
    cka_matrix,
    cka_of_products,
    linear_cka,
    outlier_tokens,
    products,
)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_rotated_scaled_and_shifted_copy_is_the_same():
    x = normal(200, 16, seed=0)
    rotation, _ = torch.linalg.qr(normal(16, 16, seed=1))
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1)


def test_independent_rows_have_the_value_of_chance():
    """E||XᵀY||² = N·D·E and ||XᵀX||² ≈ N²·D + N·D²: together D / (N + D) where D = E."""
    x, y = normal(2000, 40, seed=0), normal(2000, 40, seed=1)
    assert linear_cka(x, y) == pytest.approx(40 / 2040, rel=0.1)
    shuffled = x[torch.randperm(2000, generator=torch.Generator().manual_seed(2))]
    assert linear_cka(x, shuffled) == pytest.approx(40 / 2040, rel=0.1)


def test_one_shared_outlier_makes_unlike_layers_alike():
    x, y = normal(300, 20, seed=0), normal(300, 20, seed=1)
    assert linear_cka(x, y) < 0.1
    x[7, 3] = y[7, 5] = 1e4
    assert linear_cka(x, y) > 0.99
    outliers = outlier_tokens(torch.stack([x.norm(dim=1), y.norm(dim=1)]))
    assert outliers.nonzero().flatten().tolist() == [7]
    assert linear_cka(x[~outliers], y[~outliers]) < 0.1


def test_an_outlier_of_one_layer_is_enough_and_equal_norms_have_none():
    norms = torch.ones(3, 50)
    assert not outlier_tokens(norms).any()
    norms[1, 4] = 10.5
    assert outlier_tokens(norms).nonzero().flatten().tolist() == [4]
    norms[1, 4] = 9.5
    assert not outlier_tokens(norms).any()


def test_the_matrix_has_the_values_of_the_pairs():
    states = torch.stack([normal(60, 12, seed=seed) for seed in range(3)])
    matrix = cka_matrix(states)
    for i in range(3):
        for j in range(3):
            assert float(matrix[i, j]) == pytest.approx(linear_cka(states[i], states[j]), rel=1e-5)


def test_some_of_the_tokens_are_their_rows_and_columns_of_the_products():
    x, y = normal(80, 12, seed=0) + 3, normal(80, 9, seed=1)
    k, m = products(x), products(y)
    kept = torch.arange(80) % 3 > 0
    of_some = cka_of_products(k[kept][:, kept], m[kept][:, kept])
    assert of_some == pytest.approx(linear_cka(x[kept], y[kept]))
    assert of_some != pytest.approx(linear_cka(x, y))
    # by features: ||XᵀY||² / (||XᵀX||·||YᵀY||)
    x, y = x - x.mean(0), y - y.mean(0)
    by_features = (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert cka_of_products(k, m) == pytest.approx(float(by_features))


def test_rows_of_different_tokens_are_refused():
    with pytest.raises(ValueError, match="got 3 rows beside 4"):
        linear_cka(torch.zeros(3, 2), torch.zeros(4, 2))
