"""How alike two layers' representations are: linear CKA, and the tokens that can fake it.

A few tokens with a huge norm decide CKA alone: two layers that share them look the same, whatever
the other tokens do. So it is given with and without them.
"""

from __future__ import annotations

import torch

OUTLIER = 10.0  # times the median norm
CHUNK = 2**18  # products that are widened to float64 at once


def outlier_tokens(norms: torch.Tensor) -> torch.Tensor:
    """Return which tokens have a norm above 10 times the median in some layer: bool [N].

    norms: of every token in every layer, [L, N].
    """
    median = norms.median(dim=1, keepdim=True).values
    return (norms > OUTLIER * median).any(dim=0)


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the linear CKA of representations [N, D] and [N, E] of the same N tokens, 0 to 1.

    ||XᵀY||² / (||XᵀX||·||YᵀY||) of features centred over tokens (Kornblith et al. 2019,
    arXiv:1905.00414). It is the same for a rotated or scaled copy. Of independent rows it is not 0
    but about D/N where N is not far above D.

    Raises:
        ValueError: x and y have different numbers of rows.
    """
    if len(x) != len(y):
        msg = f"got {len(x)} rows beside {len(y)}; expected a row per token on both sides"
        raise ValueError(msg)
    return cka_of_products(products(x), products(y))


def products(x: torch.Tensor) -> torch.Tensor:
    """Return the dot products of all pairs of rows of x [N, D], in float64: [N, N]."""
    x = _centred(x)
    return x @ x.T


def cka_of_products(k: torch.Tensor, m: torch.Tensor) -> float:
    """Return the linear CKA of two representations from the `products` of each, [N, N].

    <K, M> / (||K||·||M||), both centred. With them CKA of some of the tokens costs no matrix
    product: it is that of the rows and columns of these tokens.
    """
    k, m = _doubly_centred(k), _doubly_centred(m)
    return float((k * m).sum() / (k.norm() * m.norm()))


def cka_matrix(states: torch.Tensor) -> torch.Tensor:
    """Return the linear CKA of every pair of layers, float64 [L, L]; states: [L, N, D]."""
    rows = []
    for layer in states:
        x = _centred(layer).float()
        rows.append((x @ x.T).flatten())
    stacked = torch.stack(rows)  # [L, N²]
    # Summed in float64, a part at a time: N² terms of very different size.
    shared = torch.zeros(len(states), len(states), dtype=torch.float64, device=states.device)
    for part in stacked.split(CHUNK, dim=1):
        shared += part.double() @ part.double().T
    own = shared.diagonal().sqrt()
    return shared / (own[:, None] * own)


def _centred(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x - x.mean(dim=0)


def _doubly_centred(k: torch.Tensor) -> torch.Tensor:
    means = k.mean(dim=0)
    return k - means[None] - means[:, None] + means.mean()
