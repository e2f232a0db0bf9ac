"""The shape of an update ΔW: how many directions hold it, and which.

Of LoRA's ΔW = s·B·A it is computed from the factors alone. A product of rank r in an m × n matrix
has its whole singular value decomposition in an r × r core: with B = Q_B·R_B and Aᵀ = Q_A·R_A (QR),
ΔW = Q_B·(s·R_B·R_Aᵀ)·Q_Aᵀ. For r = 8 in 576 × 1536 this is some thousand times less work than
decomposing ΔW, and it leaves no rounding noise where singular values are 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

SHARE = 0.9  # of ‖ΔW‖_F², which an energy rank counts directions for


@dataclass(frozen=True)
class Directions:
    """ΔW = left · diag(values) · rightᵀ, columns orthonormal.

    left: [m, k]; values: [k], falling; right: [n, k].
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor


def decompose(B: torch.Tensor, A: torch.Tensor, scale: float) -> Directions:
    """Return the singular value decomposition of scale·B·A.

    B [m, r], A [r, n]; k = min(m, n, r) directions.
    """
    Q_B, R_B = torch.linalg.qr(B)  # [m, r], [r, r]
    Q_A, R_A = torch.linalg.qr(A.T)  # [n, r], [r, r]
    U, values, Vh = torch.linalg.svd(scale * R_B @ R_A.T, full_matrices=False)
    return Directions(Q_B @ U, values, Q_A @ Vh.T)


def principal_directions(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return singular values [d], falling, and vectors [d, d] of a matrix's smaller side.

    The matrix is [m, n], d = min(m, n). They are computed from the eigenvalues of its Gram matrix
    in float64: several times faster than a decomposition of the matrix, and exact down to 1e-8 of
    the largest value, below which energies (squares) are negligible.
    """
    wide = matrix.double()
    if matrix.shape[0] > matrix.shape[1]:
        wide = wide.T  # [d, at least d]
    squares, vectors = torch.linalg.eigh(wide @ wide.T)  # rising
    return squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)


def project(matrix: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return the part of a matrix in the span of orthonormal columns on its smaller side.

    matrix [m, n]; vectors [d, k], d = min(m, n). With the first k columns of
    `principal_directions` it is the best approximation of rank k (Eckart and Young 1936).
    """
    vectors = vectors.to(matrix.dtype)
    if matrix.shape[0] <= matrix.shape[1]:
        return vectors @ (vectors.T @ matrix)
    return (matrix @ vectors) @ vectors.T


def random_columns(d: int, k: int, generator: torch.Generator) -> torch.Tensor:
    """Return k orthonormal columns [d, k] in directions drawn evenly.

    They are the null of every statement about directions.
    """
    return torch.linalg.qr(torch.randn(d, k, generator=generator))[0]


def stable_rank(values: torch.Tensor) -> torch.Tensor:
    """Return ‖ΔW‖_F² / ‖ΔW‖₂² from singular values [..., k].

    It is 1 if one direction holds all, k if all directions are equally strong.
    """
    squares = values.double() ** 2
    return squares.sum(-1) / squares.amax(-1)


def energy_rank(values: torch.Tensor, share: float = SHARE) -> torch.Tensor:
    """Return the fewest directions with `share` of ‖ΔW‖_F².

    From singular values [..., k], falling.
    """
    squares = values.double() ** 2
    shares = squares.cumsum(-1) / squares.sum(-1, keepdim=True)
    return (shares < share - 1e-12).sum(-1) + 1  # the last sum can miss 1 by a rounding


def overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return φ(i, i) = ‖U_iᵀ·V_i‖_F² / i for i = 1 … k of two sets of orthonormal columns [d, k].

    It is between 0 and 1; 1 where the first i columns of both span the same subspace. Two random
    subspaces have i / d in the mean, since each of the i² squared cosines has 1 / d. Definition: Hu
    et al. 2021 (arXiv:2106.09685), section 7.2.
    """
    k = min(one.shape[1], other.shape[1])
    squares = (one[:, :k].T @ other[:, :k]) ** 2  # [k, k]
    return squares.cumsum(0).cumsum(1).diagonal() / torch.arange(1, k + 1)


def inside_norm(update: Directions, weight: torch.Tensor, k: int) -> torch.Tensor:
    """Return ‖U_kᵀ·W·V_k‖_F: how much of W [m, n] is in the update's k strongest directions.

    The update's own norm there, divided by it, is the amplification of Hu et al. 2021, section 7.3.
    Random directions hold ‖W‖_F · k / √(m·n) of W, in the root of the mean square. Choose k below
    the rank: where a rank is close to full, the last directions are rounding errors.
    """
    return torch.linalg.norm(update.left[:, :k].T @ weight @ update.right[:, :k])


def factors_by_layer(
    state: Mapping[str, torch.Tensor],
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return name of the adapted layer -> B [m, r] and A [r, n], from an adapter's tensors.

    The tensors have the names of PEFT's files.
    """
    factors = {}
    for name, A in state.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            B = state[f"{layer}.lora_B.weight"]
            factors[layer.removeprefix("base_model.model.")] = (B, A)
    return factors
