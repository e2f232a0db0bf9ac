"""How alike two layers' representations are: linear CKA, and the tokens that can fake it.

A few tokens with a huge norm decide CKA alone: two layers that share them look the same, whatever
the other tokens do. So it is given with and without them.
"""

from __future__ import annotations

import torch

OUTLIER = 10.0  # times the median norm


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
    x, y = _centred(x), _centred(y)
    shared = (x.T @ y).square().sum()
    own = (x.T @ x).norm() * (y.T @ y).norm()
    return float(shared / own)


def cka_matrix(states: torch.Tensor) -> torch.Tensor:
    """Return the linear CKA of every pair of layers, [L, L]; states: [L, N, D]."""
    # ||XᵀY||² = <XXᵀ, YYᵀ>: with the [N, N] products of each layer a pair costs N², not N·D².
    products = []
    for layer in states:
        x = _centred(layer)
        product = x @ x.T
        products.append((product / product.norm()).flatten())
    stacked = torch.stack(products)  # [L, N²]
    return stacked @ stacked.T


def _centred(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x - x.mean(dim=0)
