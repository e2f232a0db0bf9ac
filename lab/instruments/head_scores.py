"""What a head does, as numbers: means of attention statistics over queries, and a divergence.

Statistics are those of `attention.AttentionStatistics`, [..., H, Q]; the leading dimensions are
kept. Scores are [..., H].
"""

from __future__ import annotations

import math

import torch

SINK_THRESHOLD = 0.3  # of Gu et al. 2025, When Attention Sink Emerges (arXiv:2410.10781)
FIRST_SPREAD = 16  # first query of an entropy's mean: a row of few keys cannot be spread out


def mean_from(statistic: torch.Tensor, first: int) -> torch.Tensor:
    """Return the mean over the queries from `first` on: [..., H, Q] → [..., H]."""
    return statistic[..., first:].mean(-1)


def sink_rate(shares: torch.Tensor, threshold: float = SINK_THRESHOLD) -> torch.Tensor:
    """Return the share of heads whose mean share of one key is above the threshold, in percent.

    shares: [..., Q], the weight of key k for each query that can see it (q ≥ k). The mean over
    queries is compared per sequence, layer and head, then counted over all of them (Gu et al.
    2025). It depends on the length: compare at the same Q only.
    """
    return 100 * (shares.mean(-1) > threshold).float().mean()


def normalised_entropy(entropy: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return the entropy as a share of the largest possible, ln(keys), in the mean over queries.

    entropy: [..., H, Q]; keys: [Q]. Queries before FIRST_SPREAD are left out.
    """
    largest = keys[FIRST_SPREAD:].to(entropy.dtype).log()
    return (entropy[..., FIRST_SPREAD:] / largest).mean(-1)


def distance_without_sink(distance: torch.Tensor, sink: torch.Tensor) -> torch.Tensor:
    """Return Σ A·(q - k) over the keys behind the first, renormalised: [..., Q] → [..., Q].

    The first key is q away from query q. A query that looks at nothing else has distance 0.
    """
    queries = torch.arange(distance.shape[-1], dtype=distance.dtype, device=distance.device)
    rest = 1 - sink
    others = (distance - sink * queries) / rest.clamp(min=1e-6)
    return torch.where(rest > 1e-6, others, 0.0).clamp(min=0)


def js_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence of two rows of weights, in nats: [..., K] → [...].

    0 for equal rows, ln 2 for rows without a common key (Lin 1991, doi:10.1109/18.61115).
    JS = H(m) - (H(p) + H(q)) / 2 with m = (p + q) / 2.
    """
    middle = (first + second) / 2
    own = (torch.special.entr(first).sum(-1) + torch.special.entr(second).sum(-1)) / 2
    return (torch.special.entr(middle).sum(-1) - own).clamp(0, math.log(2))
