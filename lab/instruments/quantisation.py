"""What 4 bits do to weights: relative error, bits per parameter, measured on quantised tensors."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch

from lab.instruments.memory import quantisation_tensors

BLOCK = 64  # weights per scale, bitsandbytes' default and the QLoRA paper's


def relative_error(
    weight: torch.Tensor, quant_type: Literal["nf4", "fp4"], *, double_quant: bool = True
) -> float:
    """Return ‖W − dequantise(quantise(W))‖ / ‖W‖ in the Frobenius norm.

    NF4 on a Gaussian: about 0.092; FP4: 0.122.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    whole = weight.detach().float()
    packed, state = quantize_4bit(
        whole, blocksize=BLOCK, compress_statistics=double_quant, quant_type=quant_type
    )
    return float((dequantize_4bit(packed, state) - whole).norm() / whole.norm())


def quantisation_error(weights: Iterable[torch.Tensor]) -> dict[str, np.ndarray]:
    """Return arrays [n] of n matrices.

    nf4_error, fp4_error: relative; squared_norm; distinct_values: per block; size: of the matrix.
    """
    columns: dict[str, list[float]] = {
        "nf4_error": [],
        "fp4_error": [],
        "squared_norm": [],
        "distinct_values": [],
        "size": [],
    }
    for weight in weights:
        columns["nf4_error"].append(relative_error(weight, "nf4"))
        columns["fp4_error"].append(relative_error(weight, "fp4"))
        columns["squared_norm"].append(float(weight.detach().double().square().sum()))
        columns["distinct_values"].append(distinct_per_block(weight))
        columns["size"].append(weight.numel())
    return {name: np.array(column, dtype=np.float64) for name, column in columns.items()}


def bits_per_parameter(model: torch.nn.Module) -> float:
    """Return stored bits / parameters of the 4-bit weights: values, scales, scales of scales.

    The code books (16 and 256 values, one for all tensors) and one offset per tensor are left
    out, as in the paper's 4 + 8/64 + 32/(64·256) = 4.127 (Dettmers et al. 2023,
    arXiv:2305.14314, section 3).
    """
    weights = [p for p in model.parameters() if getattr(p, "quant_state", None) is not None]
    stored = 0
    parameters = 0
    for weight in weights:
        stored += sum(t.nbytes for t in [weight.data, *quantisation_tensors(weight)])
        parameters += weight.quant_state.shape.numel()
    return 8 * stored / parameters


def distinct_per_block(weight: torch.Tensor, block: int = 32) -> float:
    """Return the mean number of distinct values in blocks of 32 along a row.

    At most 16 where weights are on a 4-bit grid. 32 is the block of the GGUF type Q4_1, so this
    tells weights that were quantised before from weights that were not.
    """
    ordered = weight.detach().float().reshape(-1, block).sort(dim=1).values  # [blocks, block]
    return float((ordered.diff(dim=1) != 0).sum(1).add(1).float().mean())
