"""Memory and time of a training step by this gate's own arithmetic, from a hub's config.

For decoders whose layers have seven matrices: q, k, v, o, gate, up, down. Memory: weights, 4-bit
scales, adapters, optimizer, and the larger of two moments: activations with logits, or gradients.
Time: operations over rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2")
NO_SLACK = {"runtime": 0.0, "activation_factor": 1.0, "workspace": 0.0}
UNFITTED = {"products": 1.0, "passes": 4.0, "operations": 100.0}


@dataclass(frozen=True)
class Sizes:
    """d, q, k, m: widths of the residual stream, all queries, all keys, the MLP; n: parameters."""

    layers: int
    d: int
    q: int
    k: int
    m: int
    heads: int
    head: int
    vocabulary: int
    n: int

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Return inputs and outputs of the seven matrices of a layer."""
        d, q, k, m = self.d, self.q, self.k, self.m
        return [(d, q), (d, k), (d, k), (q, d), (d, m), (d, m), (m, d)]

    @property
    def linear(self) -> int:
        """Return the weights of all these matrices."""
        return self.layers * sum(a * b for a, b in self.matrices)

    @property
    def per_rank(self) -> int:
        """Return the parameters of adapters of rank 1."""
        return self.layers * sum(a + b for a, b in self.matrices)


@dataclass(frozen=True)
class Step:
    """A step of training. On a GPU: 16 bits, layers computed again, everything trained."""

    method: str
    batch: int
    sequence: int
    rank: int
    on_gpu: bool

    @property
    def tokens(self) -> int:
        """Return the tokens of the step; the loss counts all of them."""
        return self.batch * self.sequence

    @property
    def width(self) -> int:
        """Return the bytes of a weight that is not in 4 bits."""
        return 2 if self.on_gpu else 4

    def trained(self, sizes: Sizes) -> int:
        """Return how many parameters are trained."""
        if self.method == "full":
            return sizes.n if self.on_gpu else sizes.linear
        return self.rank * sizes.per_rank


def sizes_of(config: Mapping[str, Any], parameters: int) -> Sizes:
    """Return the sizes that a config states; `parameters` is the published count."""
    assert config["model_type"] in FAMILIES, f"the gate does not know {config['model_type']}"
    heads, d = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or d // heads
    return Sizes(
        layers=config["num_hidden_layers"],
        d=d,
        q=heads * head,
        k=(config.get("num_key_value_heads") or heads) * head,
        m=config["intermediate_size"],
        heads=heads,
        head=head,
        vocabulary=config["vocab_size"],
        n=parameters,
    )


def kept(sizes: Sizes, step: Step) -> float:
    """Return the bytes of activations that wait for the backward pass, without the logits."""
    t, w = step.tokens, step.width
    values = 2 * sizes.d + 3 * sizes.q + 2 * sizes.k + 4 * sizes.m
    if step.method != "full":
        values += 7 * step.rank
    layer = t * (w * values + 4 * (2 * sizes.d + 2 + sizes.heads))
    layers = sizes.layers * layer
    if step.on_gpu:
        layers = layer + sizes.layers * t * sizes.d * w
    return layers + w * t * (2 * sizes.head + sizes.d) + 8 * 3 * t


def step_bytes(sizes: Sizes, step: Step, fit: Mapping[str, float]) -> float:
    """Return the peak of the whole process in bytes."""
    w, trained = step.width, step.trained(sizes)
    # 1. The weights.
    weights: float = w * sizes.n
    if step.method == "qlora":
        scales = 0
        for a, b in sizes.matrices:
            blocks = ceil(a * b / 64)
            scales += blocks + 4 * ceil(blocks / 256)
        weights = w * (sizes.n - sizes.linear) + sizes.linear / 2 + sizes.layers * scales

    # 2. What is trained.
    adapters = 0 if step.method == "full" else 4 * trained
    moments = (12 if step.on_gpu and step.method == "full" else 8) * trained
    gradients = (w if step.method == "full" else 4) * trained

    # 3. What the backward pass needs: logits of one group of at most 128 tokens.
    group = ceil(step.tokens / ceil(step.tokens / 128))
    logits = group * sizes.vocabulary * (10 if step.on_gpu else 8)
    forward = fit["activation_factor"] * kept(sizes, step) + logits
    rest = adapters + moments + fit["workspace"] + fit["runtime"]
    return weights + rest + max(forward, gradients)


def step_seconds(
    sizes: Sizes, step: Step, rates: Mapping[str, float], fit: Mapping[str, float]
) -> float:
    """Return the seconds of a step."""
    t, trained = step.tokens, step.trained(sizes)
    again = 1 if step.on_gpu else 0  # the forward pass is computed twice
    is_full = step.method == "full"
    layer = (6 if is_full else 4) + 2 * again
    head = 6 if is_full and step.on_gpu else 4
    seconds = t * layer * sizes.linear / rates["layer"]
    seconds += t * head * sizes.d * sizes.vocabulary / rates["head"]
    if not is_full:
        seconds += t * (6 + 2 * again) * trained / rates["adapter"]
    squares = step.batch * step.sequence**2 * sizes.q * sizes.layers
    seconds += (7 + 2 * again) * squares / rates["attention"]
    total = fit["products"] * seconds
    total += fit["passes"] * kept(sizes, step) / rates["bandwidth"]
    total += fit["operations"] * sizes.layers * rates["overhead"]
    total += 28 * trained / rates["bandwidth"]
    if step.method == "qlora":
        total += (2 + again) * sizes.linear / rates["dequantised"]
    return total


def datasheet_rates(peak: float, bandwidth: float, utilisation: float) -> dict[str, float]:
    """Return the rates of a GPU: products at a share of the peak [FLOP/s], bandwidth [bytes/s]."""
    products = peak * utilisation
    rates = dict.fromkeys(("layer", "adapter", "head", "attention"), products)
    return rates | {"bandwidth": bandwidth, "dequantised": bandwidth / 2.5, "overhead": 1e-5}
