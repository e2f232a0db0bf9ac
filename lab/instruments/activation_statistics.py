"""Running statistics of activations, over any number of passes, without keeping the activations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

LARGEST = 3  # how many extremes are kept
ROWS = 1024  # tokens that are widened to float64 at once


@dataclass(frozen=True, order=True)
class Extreme:
    """One of the largest activations: its size |x| and its place.

    sequence: counted over all passes; position: in its row of tokens, padding included.
    """

    size: float
    sequence: int
    position: int
    dimension: int


@dataclass
class ActivationStatistics:
    """Statistics of the activations of one name in one layer, D dimensions each.

    Mean and variance are merged as Chan, Golub and LeVeque (1979) do, in float64: sums of squares
    would cancel where a dimension's mean is much larger than its spread, as in massive activations.

    Attributes:
        tokens, first_tokens: how many were counted, padding left out.
        sequences: rows that were seen, one of padding alone included.
        mean: [D], float64.
        largest: the three largest |x|, largest first; NaN counts as the largest.
    """

    tokens: int = 0
    sequences: int = 0
    first_tokens: int = 0
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    largest: tuple[Extreme, ...] = ()
    _squares: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    _norms: float = 0.0
    _first_norms: float = 0.0
    _medians: float = 0.0

    @property
    def variance(self) -> torch.Tensor:
        """Return the variance of each dimension over tokens, [D], float64, divided by n."""
        return self._squares / max(self.tokens, 1)

    @property
    def mean_norm(self) -> float:
        """Return the mean length of a token's vector."""
        return self._norms / max(self.tokens, 1)

    @property
    def mean_norm_without_first(self) -> float:
        """Return the same without the first token of each sequence; 0 if there is no other.

        The first token is often hundreds of times as long: Sun et al. 2024, "Massive Activations".
        """
        return (self._norms - self._first_norms) / max(self.tokens - self.first_tokens, 1)

    @property
    def mean_median(self) -> float:
        """Return the mean over tokens of the median of |x| over D, the lower one of two."""
        return self._medians / max(self.tokens, 1)

    @property
    def nbytes(self) -> int:
        """Return the bytes of what is kept: two vectors of D, the extremes and six numbers."""
        return self.mean.nbytes + self._squares.nbytes + 8 * (4 * len(self.largest) + 6)

    def update(
        self,
        x: torch.Tensor,
        *,
        keep: torch.Tensor,
        first: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:
        """Count the activations of one pass.

        x: [B, P, D]; keep: [B, P], false for padding; first: [B, P], true at the first token of a
        sequence; positions: [P], the columns' positions in the rows of tokens.
        """
        # 1. Mean, variance, lengths and medians.
        for rows, is_first in zip(x[keep].split(ROWS), first[keep].split(ROWS), strict=True):
            wide = rows.double()
            self._merge(wide)
            norms = wide.norm(dim=-1)
            self._norms += float(norms.sum())
            self._first_norms += float(norms[is_first].sum())
            self._medians += float(rows.abs().median(dim=-1).values.double().sum())
        self.first_tokens += int((first & keep).sum())

        # 2. The extremes. Padding has size -1, below any.
        sizes = x.abs().masked_fill(~keep[:, :, None], -1.0).flatten()
        values, places = sizes.topk(min(LARGEST, sizes.numel()))
        extremes = list(self.largest)
        for size, place in zip(values.tolist(), places.tolist(), strict=True):
            row, dimension = divmod(place, x.shape[2])
            sequence, column = divmod(row, x.shape[1])
            if not size < 0:  # NaN, which is no number, must not be overlooked
                position = int(positions[column])
                extremes.append(Extreme(size, self.sequences + sequence, position, dimension))
        extremes.sort(key=lambda each: (not math.isnan(each.size), -each.size))
        self.largest = tuple(extremes[:LARGEST])
        self.sequences += len(x)

    def _merge(self, wide: torch.Tensor) -> None:
        """Merge mean and squared deviations of [N, D] rows into those of all before."""
        count = len(wide)
        if count == 0:
            return
        mean = wide.mean(0)
        squares = (wide - mean).square().sum(0)
        if self.tokens == 0:
            self.tokens, self.mean, self._squares = count, mean, squares
            return
        total = self.tokens + count
        delta = mean - self.mean
        self._squares = self._squares + squares + delta.square() * (self.tokens * count / total)
        self.mean = self.mean + delta * (count / total)
        self.tokens = total
