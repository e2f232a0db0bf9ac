"""Where the best learning rate should be by a published formula, where measured losses put it."""

from collections.abc import Sequence

BASE_RATE, LORA_FACTOR, REFERENCE_WIDTH = 5e-5, 10.0, 2000
EXPONENTS = {
    "llama": 0.781,
    "qwen2": 0.0775,
    "qwen3": 0.0775,
}  # by config.model_type; the formula knows no other family


def formula_rate(family: str, hidden_size: int) -> float | None:
    """Best LoRA rate by 5e-5 · 10 · (2000 / hidden_size)^P; None for a model_type not fitted.

    The fit of tinker-cookbook (Thinking Machines Lab 2025, hyperparam_utils.get_lr), made on models
    from 1 B parameters on; for a smaller one it is an extrapolation.
    """
    if family not in EXPONENTS:
        return None
    return BASE_RATE * LORA_FACTOR * (REFERENCE_WIDTH / hidden_size) ** EXPONENTS[family]


def vertex(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Where the parabola through three points (x rising) is lowest.

    None if it opens downwards or is a line. Newton's form: with the slopes s₁ and s₂ of the two
    chords, y″/2 = (s₂ − s₁)/(x₂ − x₀), and the slope s₁ is reached in the middle of the first
    chord; from there it is −s₁/y″ to the vertex. The vertex of points that fall or rise throughout
    lies outside of them: an extrapolation.
    """
    (x0, x1, x2), (y0, y1, y2) = x, y
    first, second = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = 2 * (second - first) / (x2 - x0)
    return (x0 + x1) / 2 - first / curvature if curvature > 0 else None
