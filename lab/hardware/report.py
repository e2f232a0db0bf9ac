"""The sentences of the measured half, made from its measurements."""

from __future__ import annotations

from collections.abc import Mapping

from lab.contract import Measurement
from lab.present.numbers import number

MEMORY_BOUND = 0.15
TIME_BOUND = 0.25


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return what the numbers say."""
    m = measurements

    def shown(name: str, factor: float = 1.0) -> str:
        return number(m[name].number * factor, 3)

    def count(name: str) -> str:
        return number(m[name].value)

    within = "within" if m["memory_error_max"].number < MEMORY_BOUND else "NOT within"
    on_time = "within" if m["time_error_max"].number < TIME_BOUND else "NOT within"
    constant = "fails" if m["memory_error_constant"].number >= MEMORY_BOUND else "PASSES TOO"
    larger = "more" if m["logits_over_weights"].number > 1 else "NOT more"
    return (
        f"Memory of {count('held_out')} trainings that the model was not fitted to: "
        f"{within} {number(MEMORY_BOUND, 2)} of what they add to the loaded process, at worst "
        f"{shown('memory_error_max')}. The same bound on a constant {constant}: "
        f"{shown('memory_error_constant')}. One number is fitted, a workspace of "
        f"{shown('memory_workspace', 1e-6)} MB; activations are counted to "
        f"{shown('activations_count_error')} of their bytes.",
        f"Time of a step of the same trainings: {on_time} {number(TIME_BOUND, 2)}, at worst "
        f"{shown('time_error_max')}, {shown('time_error_mean')} in the mean; a constant misses by "
        f"{shown('time_error_constant')}.",
        f"The lab's loop keeps freed memory: it holds {shown('memory_kept_factor')} bytes per byte "
        "of activations. The model is held against steps that return memory; the decision "
        "counts what the loop keeps.",
        f"This machine multiplies matrices of the model's shapes at {shown('gemm_float32')} "
        f"GFLOP/s in float32 and moves {shown('bandwidth')} GB/s.",
        f"Full logits of {2048:,} tokens would be {larger} bytes than the model's weights under "
        f"QLoRA: {shown('logits_over_weights')} times.",
        f"On a GPU a step of 2,048 tokens of Llama-3.1-8B needs {shown('qlora_8b_gigabytes')} GB "
        f"with QLoRA and {shown('full_8b_gigabytes')} GB with full fine-tuning.",
        f"The {count('experiments')} verified experiments took "
        f"{shown('experiments_seconds', 1 / 60)} minutes and at most "
        f"{shown('experiments_peak', 1e-9)} GB.",
    )
