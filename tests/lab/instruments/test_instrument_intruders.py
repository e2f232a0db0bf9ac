"""Intruder dimensions: an added one is seen, an update that stretches old directions is not."""

import torch

from lab.instruments import intruders


def weight() -> torch.Tensor:
    return torch.randn(96, 64, generator=torch.Generator().manual_seed(0))


def test_a_matrix_has_no_intruders_beside_itself():
    W = weight()
    similarities = intruders.similarities(intruders.left_vectors(W), W, 10)
    assert torch.allclose(similarities, torch.ones(10), atol=1e-4)


def test_a_direction_of_its_own_is_seen_and_comes_first():
    """The base's left vectors span 64 of 96 dimensions; one outside is like none of them."""
    W = weight()
    U = intruders.left_vectors(W)
    outside = torch.linalg.svd(U, full_matrices=True).U[:, -1]
    spike = 100 * torch.outer(outside, torch.ones(64) / 8)
    similarities = intruders.similarities(U, W + spike, 10)
    assert similarities[0] < 0.1
    assert (similarities[1:] > 0.5).sum() >= 7


def test_stretching_old_directions_brings_none():
    U, S, Vh = torch.linalg.svd(weight(), full_matrices=False)
    stretched = U @ torch.diag(S * torch.linspace(1.5, 1.0, 64)) @ Vh
    assert (intruders.similarities(U, stretched, 10) > 0.99).all()
