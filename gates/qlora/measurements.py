"""FEAT-001's measurements by name: which are computed again, and how the others are bounded."""

from __future__ import annotations

from gates.qlora import arrays as qlora_arrays
from gates.qlora.arrays import EVALUATIONS, RUNS
from gates.shared import outputs, stored

RECOMPUTED = (
    "train_examples",
    "eval_examples",
    "tokens_per_example",
    "supervised_share",
    "adapter_parameters",
    "adapter_share",
    "step_0_difference",
    *(
        f"eval_{what}_{name}"
        for name in EVALUATIONS
        for what in ("loss", "token_accuracy", "entropy")
    ),
    "improvement",
    "improvement_shuffled",
    "control_gap",
    "format_share",
    *(f"last_{what}_{name}" for name in RUNS for what in ("loss", "token_accuracy", "entropy")),
    *(f"grad_norm_{what}_{name}" for name in RUNS for what in ("median", "max")),
    "steps",
    "learning_rate_peak",
    "first_loss",
    "tokens_per_second_total",
    "tokens_per_second_supervised",
    "seconds_per_step",
    *(
        f"seconds_{stage}"
        for stage in ("loading", "data", "evaluation", "generation", "training", "quantisation")
    ),
    "memory_adapters",
    "memory_gradients",
    "memory_optimizer",
    "bits_per_parameter",
    *(
        f"{of}{what}"
        for of in ("", "gaussian_")
        for what in ("nf4_error", "fp4_error", "nf4_fp4_ratio")
    ),
    "distinct_values",
    "gaussian_distinct_values",
)
BOUNDED = ("memory_peak", "memory_weights", "memory_rest", "memory_process")
GIB = 2**30


def assert_weights_have_their_shapes() -> None:
    """Check the bytes of the frozen weights against the base model's shapes."""
    met, right = outputs.value("memory_weights"), qlora_arrays.numbers()["memory_weights"]
    # the buffers of the rotary embedding come on top
    assert 0 <= met - right <= 1e-3 * right + 4096, f"memory_weights {met}, by the shapes {right}"


def assert_memory_adds_up() -> None:
    """Check that the parts of the peak are its parts."""
    parts = [outputs.value(f"memory_{part}") for part in (*qlora_arrays.PARTS, "rest")]
    assert sum(parts) == outputs.value("memory_peak"), f"the parts add up to {sum(parts)}"
    assert all(part > 0 for part in parts), f"a part is not positive: {parts}"


def assert_memory_is_possible() -> None:
    """Check what no one can measure again: the peak, and the process before it had a model."""
    peak, process = outputs.value("memory_peak"), outputs.value("memory_process")
    assert outputs.value("memory_weights") < peak < 6 * GIB, f"memory_peak {peak}"
    assert GIB / 20 < process < 3 * GIB, f"memory_process {process}"
    if stored.config()["device"] == "cpu":
        assert process < peak, (
            f"the process held {process} before it loaded the model, more than at its peak"
        )
