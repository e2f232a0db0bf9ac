"""A transformer of attention layers only: small enough to read every number of.

    x = E[ids]                              [B, T, d]   the residual stream starts as embeddings
    x = x + attention_l(norm(x))            for each layer l
    logits = U norm(x)                      [B, T, V]   U is not tied to E

There are no MLPs, no biases and no learned scales, as in the models of Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits": whatever the model does, heads do.

Positions are rotary (Su et al. 2021, arXiv:2104.09864): queries and keys are rotated by their
positions, so that a score depends on the distance of query and key. Values and residual stream
hold no positions. So a head that attends to the previous token writes which *token* that was and
nothing else, and it has to learn "one back" once and not for each position.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000.0
EMBEDDING_STD = 0.3
# Share of the usual size that a layer's output starts with: at the start the residual stream is
# the tokens, and a head that learns nothing writes little.
OUTPUT_SHARE = 0.3
UNEMBEDDING_STD = 0.02  # the first prediction is nearly uniform: its loss is ln V

Head = tuple[int, int]  # (layer, head)


@dataclass(frozen=True)
class Shape:
    """The size of a model: tokens V, width d, layers L, heads H of each layer, their width D."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    head_width: int


class AttentionOnly(nn.Module):
    """Embedding, attention layers on a residual stream, unembedding.

    Its parameters, float32: `embedding` [V, d]; of each layer `layers.L.query`, `.key` and `.value`
    [d, H·D], `layers.L.output` [H·D, d], which multiply from the right; `unembedding` [d, V]. Head
    h has the columns h·D to (h + 1)·D of query, key and value, and these rows of output.
    """

    def __init__(self, shape: Shape, seed: int) -> None:
        """Make a model with random weights drawn from `seed`.

        Raises:
            ValueError: the heads' width is odd, so that it has no pairs to rotate.
        """
        super().__init__()
        if shape.head_width % 2:
            msg = f"heads of width {shape.head_width}; expected an even width, such as 32"
            raise ValueError(msg)
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)

        def normal(rows: int, columns: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * std)

        inner = shape.heads * shape.head_width
        self.embedding = normal(shape.vocabulary, shape.width, EMBEDDING_STD)
        self.layers = nn.ModuleList()
        for _ in range(shape.layers):
            layer = nn.Module()
            for name in ("query", "key", "value"):
                setattr(layer, name, normal(shape.width, inner, shape.width**-0.5))
            layer.output = normal(inner, shape.width, OUTPUT_SHARE * inner**-0.5)
            self.layers.append(layer)
        self.unembedding = normal(shape.width, shape.vocabulary, UNEMBEDDING_STD)

    def forward(self, ids: Tensor, zeroed: Collection[Head] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, T, V] and the pattern [B, H, T, T] of each layer.

        ids: token ids [B, T]. `zeroed` heads write nothing to the residual stream.
        """
        x = self.embedding[ids]  # [B, T, d]
        rotation = rotations(ids.shape[1], self.shape.head_width)
        patterns = []
        for index, layer in enumerate(self.layers):
            silent = [head for at, head in zeroed if at == index]
            written, pattern = self._attend(layer, norm(x), rotation, silent)
            x = x + written
            patterns.append(pattern)
        return norm(x) @ self.unembedding, patterns

    def _attend(
        self, layer: nn.Module, x: Tensor, rotation: tuple[Tensor, Tensor], silent: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return what a layer writes [B, T, d] and its pattern [B, H, T, T]."""
        batch, length, _ = x.shape
        heads, size = self.shape.heads, self.shape.head_width

        # 1. Queries, keys, values: [B, T, H·D] -> [B, T, H, D] -> [B, H, T, D]
        def split(projected: Tensor) -> Tensor:
            return projected.view(batch, length, heads, size).transpose(1, 2)

        q = rotate(split(x @ layer.query), rotation)
        k = rotate(split(x @ layer.key), rotation)
        v = split(x @ layer.value)

        # 2. Softmax over the keys that a query may see: itself and what is before it.
        scores = q @ k.transpose(2, 3) * size**-0.5  # [B, H, T, T]
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(hidden, float("-inf")).softmax(-1)

        # 3. What the heads write: [B, H, T, D] -> [B, T, H, D] -> [B, T, H·D] -> [B, T, d]
        z = pattern @ v
        if silent:
            z = z.index_fill(1, torch.tensor(silent), 0.0)
        z = z.transpose(1, 2).reshape(batch, length, heads * size)
        return z @ layer.output, pattern


def norm(x: Tensor) -> Tensor:
    """Return x [.., d] with mean 0 and variance 1 over d: a layer norm without parameters."""
    return functional.layer_norm(x, x.shape[-1:])


def rotations(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [T, size / 2] of the angles position · base^(-2i/size)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, size, 2) / size)  # [size / 2]
    angles = torch.outer(torch.arange(length), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Return x [.., T, size] with each pair (x_i, x_{i + size/2}) rotated by its position."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), -1)
