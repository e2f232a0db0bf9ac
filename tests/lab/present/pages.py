"""Small attention pages for tests: 2 layers of 3 heads with random causal patterns."""

import json
import re
from typing import Any

import numpy as np

LAYERS, HEADS = 2, 3


def patterns(tokens: int, *, seed: int = 0) -> list[np.ndarray]:
    """Return [heads, T, T] of each layer: rows that sum to 1, nothing above the diagonal."""
    rng = np.random.default_rng(seed)
    weights = np.tril(rng.gamma(0.3, size=(LAYERS, HEADS, tokens, tokens)) + 1e-6)
    return list(weights / weights.sum(-1, keepdims=True))


def statistic(*, first: float = 0.05) -> list[list[float]]:
    """Return [layers][heads]: `first`, and 0.15 more with each head."""
    values = first + 0.15 * np.arange(LAYERS * HEADS)
    return values.reshape(LAYERS, HEADS).tolist()


def words(count: int) -> list[str]:
    """Return that many different tokens."""
    return [f" w{i}" for i in range(count)]


def data_of(html: str) -> dict[str, Any]:
    """Return the data that a page carries."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    document: dict[str, Any] = json.loads(text)
    return document
