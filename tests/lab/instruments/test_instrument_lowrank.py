"""Low-rank instruments against plain linear algebra, on matrices with a known shape and none."""

import math

import pytest
import torch

from lab.instruments import lowrank


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("m", "n", "r"), [(20, 30, 4), (30, 20, 4), (6, 30, 8), (6, 6, 6), (5, 7, 9)]
)
def test_factors_give_the_decomposition_of_their_product(m, n, r):
    """Also where the rank is larger than a side, as of a narrow layer."""
    B, A = draw(m, r), draw(r, n, seed=1)
    update = lowrank.decompose(B, A, 0.5)
    expected = torch.linalg.svdvals(0.5 * B @ A)[: min(m, n, r)]
    assert torch.allclose(update.values, expected)
    assert torch.allclose(update.left @ torch.diag(update.values) @ update.right.T, 0.5 * B @ A)
    for columns in (update.left, update.right):
        assert torch.allclose(
            columns.T @ columns, torch.eye(min(m, n, r), dtype=torch.float64), atol=1e-12
        )


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (9, 9)])
def test_principal_directions_are_those_of_the_full_decomposition(shape):
    matrix = draw(*shape)
    values, vectors = lowrank.principal_directions(matrix)
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.allclose(values, S)
    for k in (1, 5, min(shape)):
        best = U[:, :k] @ torch.diag(S[:k]) @ Vh[:k]
        assert torch.allclose(lowrank.project(matrix, vectors[:, :k]), best)


def test_no_other_directions_come_closer_than_the_best():
    matrix = draw(12, 30)
    best = matrix - lowrank.project(matrix, lowrank.principal_directions(matrix)[1][:, :3])
    for seed in range(5):
        columns = lowrank.random_columns(12, 3, torch.Generator().manual_seed(seed)).double()
        assert torch.linalg.norm(best) < torch.linalg.norm(
            matrix - lowrank.project(matrix, columns)
        )


@pytest.mark.parametrize(
    ("values", "stable", "energy"),
    [
        ([1.0, 0.0, 0.0, 0.0], 1.0, 1),
        ([1.0, 1.0, 1.0, 1.0], 4.0, 4),
        ([3.0, 1.0, 0.0, 0.0], 10 / 9, 1),  # 9 of 10 is exactly the share
        ([2.9, 1.0, 0.1, 0.0], (8.41 + 1.01) / 8.41, 2),
    ],
)
def test_ranks_of_known_spectra(values, stable, energy):
    spectrum = torch.tensor([values, [7 * v for v in values]])  # a factor changes neither
    assert torch.allclose(
        lowrank.stable_rank(spectrum), torch.tensor([stable] * 2, dtype=torch.float64)
    )
    assert lowrank.energy_rank(spectrum).tolist() == [energy] * 2


def test_noise_needs_nearly_all_directions_and_a_planted_one_shows():
    noise = draw(60, 60)
    assert lowrank.energy_rank(lowrank.principal_directions(noise)[0]) > 25
    planted = noise + 100 * draw(60, 1, seed=1) @ draw(1, 60, seed=2)
    assert lowrank.energy_rank(lowrank.principal_directions(planted)[0]) == 1


def test_the_same_subspace_overlaps_wholly_and_orthogonal_ones_not():
    basis = torch.linalg.qr(draw(20, 20))[0]
    # the same space in other columns
    turned = basis[:, :4] @ torch.linalg.qr(draw(4, 4, seed=1))[0]
    assert lowrank.overlap(basis[:, :4], turned)[3].item() == pytest.approx(1.0)
    assert torch.allclose(
        lowrank.overlap(basis[:, :4], basis[:, :4]), torch.ones(4, dtype=torch.float64)
    )
    assert lowrank.overlap(basis[:, :4], basis[:, 4:8]).abs().max().item() < 1e-12


def test_random_subspaces_overlap_as_i_over_d():
    generator = torch.Generator().manual_seed(0)
    d, k, draws = 40, 8, 400
    rows = []
    for _ in range(draws):
        one = lowrank.random_columns(d, k, generator)
        other = lowrank.random_columns(d, k, generator)
        rows.append(lowrank.overlap(one, other))
    overlaps = torch.stack(rows)  # [draws, k]
    for i in (1, 4, 8):
        error = float(overlaps[:, i - 1].std()) / math.sqrt(draws)
        assert abs(float(overlaps[:, i - 1].mean()) - i / d) < 5 * error


def test_inside_norm_measures_a_weight_along_the_update_and_not_an_orthogonal_one():
    basis = torch.linalg.qr(draw(10, 10))[0]
    other = torch.linalg.qr(draw(12, 12, seed=1))[0]
    update = lowrank.decompose(basis[:, :2], other[:, :2].T, 1.0)
    parallel = basis[:, :2] @ other[:, :2].T
    orthogonal = basis[:, 2:4] @ other[:, 2:4].T
    whole = float(torch.linalg.norm(parallel))
    assert float(lowrank.inside_norm(update, parallel, 2)) == pytest.approx(whole)
    assert float(lowrank.inside_norm(update, parallel, 1)) == pytest.approx(1.0)
    assert float(lowrank.inside_norm(update, orthogonal, 2)) < 1e-12


def test_random_directions_contain_the_share_of_a_weight_that_chance_gives_them():
    W = draw(30, 50)
    generator = torch.Generator().manual_seed(0)
    k = 5
    squares = []
    for _ in range(300):
        left, right = (lowrank.random_columns(d, k, generator).double() for d in (30, 50))
        update = lowrank.Directions(left, torch.ones(k), right)
        squares.append(float(lowrank.inside_norm(update, W, k)) ** 2)
    expected = float(torch.linalg.norm(W)) ** 2 * k * k / (30 * 50)
    assert sum(squares) / len(squares) == pytest.approx(expected, rel=0.1)


def test_factors_are_read_by_the_names_of_peft_files():
    state = {
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 3),
        "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.zeros(5, 2),
    }
    ((name, (B, A)),) = lowrank.factors_by_layer(state).items()
    assert (name, B.shape, A.shape) == ("model.layers.0.mlp.up_proj", (5, 2), (2, 3))
