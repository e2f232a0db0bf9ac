"""Whether stored sums are those that the model added: to the last bit, on any machine.

IEEE 754 fixes each sum of two numbers, so mid = x + a and y = mid + m hold bit for bit in the type
of the model. A stream that was scaled, cast from another type, or noised breaks them. And a write
that was computed as a difference, y - mid, leaves little to round: honest sums are rounded.
"""

from __future__ import annotations

from typing import Any

from gates.activation_extraction.arrays import FAMILIES, FILES, FORMS, part_of
from gates.shared import stored
from gates.shared.stored import cached, config


def differing() -> dict[str, int]:
    """Return stream -> how many numbers are not the sum of what was stored beside them."""
    return {where: int(found["differing"]) for where, found in _sums().items()}


def rounded() -> dict[str, float]:
    """Return stream -> the least share of a layer's sums that were rounded, of both sums."""
    return {where: float(found["rounded"]) for where, found in _sums().items()}


def _sums() -> dict[str, Any]:
    key = f"activation sums {config()['silent_layer']}"
    document: dict[str, Any] = cached(key, FILES, _compute)
    return document


def _compute() -> dict[str, Any]:
    found = {"model": _of_stream(stored.arrays("model"))}
    forms = stored.arrays("forms")
    for form in FORMS:
        stream = part_of(forms, form)
        silent = config()["silent_layer"] if form == "silent" else None
        found[form] = _of_stream(stream, in_bfloat16=form == "bfloat16", silent=silent)
    for family in FAMILIES:
        arrays = stored.arrays(f"families/{family}")
        for dtype in ("float32", "float64"):
            found[f"{family} {dtype}"] = _of_stream(part_of(arrays, dtype))
    return found


def _of_stream(
    stream: dict[str, Any], *, in_bfloat16: bool = False, silent: int | None = None
) -> dict[str, Any]:
    """Compare the sums of [L, ...] with what was stored as such, in the stored type or bfloat16."""
    x, a, m, y = (stream[name] for name in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
    if "resid_mid" in stream:
        pairs = [(x, a, stream["resid_mid"]), (stream["resid_mid"], m, y)]
    else:
        pairs = [(m + a, x, y)]  # GPT-NeoX adds both writes first
    wrong, shares = 0, []
    for one, other, stored_sum in pairs:
        total = _bfloat16(one + other) if in_bfloat16 else one + other
        wrong += int((total != stored_sum).sum())
        # What was lost by rounding, exactly (Knuth's two-sum).
        part = total - one
        lost = (one - (total - part)) + (other - part)
        for layer in range(len(lost)):
            if layer != silent:
                shares.append(float((lost[layer] != 0).mean()))
    return {"differing": wrong, "rounded": min(shares)}


def _bfloat16(x: Any) -> Any:
    """Return float32 numbers rounded to bfloat16, half to even."""
    import numpy as np

    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    nearest = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    return nearest.view(np.float32)
