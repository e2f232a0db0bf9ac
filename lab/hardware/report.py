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

    def percent(name: str) -> str:
        return f"{shown(name, 100)} %"

    def verdict(name: str, bound: float) -> str:
        within = "within" if m[name].number < bound else "NOT within"
        return f"{within} {number(100 * bound, 2)} %"

    constant = "fails" if m["memory_error_constant"].number >= MEMORY_BOUND else "PASSES TOO"
    larger = "more" if m["logits_over_weights"].number > 1 else "NOT more"
    return (
        f"Memory of a plain step, which returns freed memory at once: of {count('held_out')} "
        "trainings that nothing was fitted to, the worst is off by "
        f"{percent('memory_error_max')} of what it adds to the loaded process, "
        f"{verdict('memory_error_max', MEMORY_BOUND)}. A constant {constant}: "
        f"{percent('memory_error_constant')}. One number is fitted, a workspace of "
        f"{shown('memory_workspace', 1e-6)} MB; what autograd keeps is counted, and off by at most "
        f"{percent('activations_count_error')}.",
        "Memory of the lab's own loop, which keeps freed memory and is what the decision counts: "
        f"the worst of the same trainings is off by {percent('memory_error_loop')}, "
        f"{verdict('memory_error_loop', MEMORY_BOUND)}. The loop is taken to hold "
        f"{shown('memory_kept_factor')} bytes per byte of activations. What fits here by less than "
        "that error has to be tried.",
        f"Time of a step of the same trainings: {verdict('time_error_max', TIME_BOUND)}, at worst "
        f"{percent('time_error_max')}, {percent('time_error_mean')} in the mean; a constant misses "
        f"by {percent('time_error_constant')}.",
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
