"""The rates of this machine: matrix products at a model's shapes, attention, bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lab.hardware.measured import Timing
from lab.instruments.model_shape import ModelShape

ROWS = 512  # tokens of the products of layer and adapter
HEAD_ROWS = 128  # supervised tokens of one group
RANK = 16
TRIAD = 2**24  # float32 numbers of each of three arrays: 64 MiB, more than a cache
OPERATIONS = 2000


def measure_rates(shape: ModelShape, repeats: int, seed: int) -> dict[str, Timing]:
    """Return name -> amount and seconds of each repetition; the first is not timed.

    layer, adapter, head, attention: FLOP; bandwidth: bytes; dequantised: weights; overhead:
    operations.
    """
    import torch

    torch.manual_seed(seed)
    works = _works(shape)
    timings = {}
    with torch.random.fork_rng():
        for name, (amount, work) in works.items():
            timings[name] = Timing(amount, _seconds(work, repeats))
    return timings


def _works(shape: ModelShape) -> Mapping[str, tuple[float, Callable[[], Any]]]:
    """Return name -> (amount, work) of each rate."""
    import torch
    from bitsandbytes import functional as bits
    from torch.nn import functional

    def product(rows: int, inner: int, outputs: int) -> tuple[float, Callable[[], Any]]:
        a = torch.randn(rows, inner)
        b = torch.randn(outputs, inner)
        return 2.0 * rows * inner * outputs, lambda: a @ b.t()

    heads = (1, shape.query_heads, ROWS, shape.head_width)
    queries, keys, values = (torch.randn(heads, requires_grad=True) for _ in range(3))

    def attention() -> None:
        functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True
        ).sum().backward()

    first, second, target = (torch.ones(TRIAD) for _ in range(3))
    quantised, state = bits.quantize_4bit(
        torch.randn(shape.mlp_width, shape.width), quant_type="nf4", compress_statistics=True
    )
    one = torch.ones(1)

    def operations() -> None:
        for _ in range(OPERATIONS):
            one.add_(1.0)

    return {
        "layer": product(ROWS, shape.width, shape.mlp_width),
        "adapter": product(ROWS, shape.width, RANK),
        "head": product(HEAD_ROWS, shape.width, shape.vocabulary),
        "attention": (7.0 * ROWS**2 * shape.query_heads * shape.head_width, attention),
        "bandwidth": (
            3.0 * 4 * TRIAD,
            lambda: torch.add(first, second, alpha=3.0, out=target),
        ),
        "dequantised": (
            float(shape.width * shape.mlp_width),
            lambda: bits.dequantize_4bit(quantised, state),
        ),
        "overhead": (float(OPERATIONS), operations),
    }


def _seconds(work: Callable[[], Any], repeats: int) -> tuple[float, ...]:
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)
