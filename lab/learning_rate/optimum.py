"""The best learning rate: by a published formula, and by a parabola through measured losses."""

from collections.abc import Sequence

BASE_RATE = 5e-5
LORA_FACTOR = 10.0
REFERENCE_WIDTH = 2000

# config.model_type -> exponent of the width; the formula covers no other family of models
EXPONENTS = {"llama": 0.781, "qwen2": 0.0775, "qwen3": 0.0775}


def formula_rate(family: str, hidden_size: int) -> float | None:
    """Return the best LoRA rate by 5e-5 · 10 · (2000 / hidden_size)^P; None for another family.

    `family` is config.model_type. This is the fit of tinker-cookbook (Thinking Machines Lab 2025,
    hyperparam_utils.get_lr), made on models from 1 B parameters on; for a smaller one it is an
    extrapolation.
    """
    if family not in EXPONENTS:
        return None
    rate: float = BASE_RATE * LORA_FACTOR * (REFERENCE_WIDTH / hidden_size) ** EXPONENTS[family]
    return rate


def vertex(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return the x at which the parabola through three points (x rising) is lowest.

    None if it opens downwards or is a line. Newton's form: with the slopes s₁ and s₂ of the two
    chords, y″/2 = (s₂ − s₁)/(x₂ − x₀), and the parabola has the slope s₁ in the middle of the first
    chord; from there it is −s₁/y″ to the vertex. Where y falls throughout or rises throughout, the
    vertex may be outside of the points: an extrapolation.
    """
    x0, x1, x2 = x
    y0, y1, y2 = y
    first_slope = (y1 - y0) / (x1 - x0)
    second_slope = (y2 - y1) / (x2 - x1)
    curvature = 2 * (second_slope - first_slope) / (x2 - x0)
    if curvature <= 0:
        return None
    return (x0 + x1) / 2 - first_slope / curvature
