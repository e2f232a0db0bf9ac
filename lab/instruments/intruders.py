"""Intruder dimensions: leading singular vectors of a tuned matrix that are unlike all of its base.

W = U·S·Vᵀ is a matrix before tuning, W' = W + ΔW = U'·S'·V'ᵀ after it. For each of the first k
columns u'_j of U' the similarity c_j = max_i |⟨u'_j, u_i⟩| is 1 where the base has the vector and
small where it is new; a u'_j with c_j below a threshold is an intruder (Shuttleworth et al. 2024,
arXiv:2410.21228). Against a basis of 576 vectors a random direction has a similarity of about
√(2·ln 576 / 576) = 0.15.
"""

import torch


def left_vectors(weight: torch.Tensor) -> torch.Tensor:
    """Return the left singular vectors U [out, min(out, in)] of a matrix [out, in].

    The vector of the largest singular value is the first.
    """
    return torch.linalg.svd(weight.float(), full_matrices=False).U


def similarities(base_vectors: torch.Tensor, tuned: torch.Tensor, directions: int) -> torch.Tensor:
    """Return c_j [directions] of the tuned matrix's leading left singular vectors.

    base_vectors: [out, min(out, in)], see `left_vectors`; tuned: [out, in]. Each c_j is 1 where
    nothing was changed.
    """
    leading = left_vectors(tuned)[:, :directions]  # [out, k]
    return (base_vectors.T @ leading).abs().amax(0)
