"""FEAT-001's measurements by name: which are recomputed, and how the others are bounded."""

from __future__ import annotations

from gates.qlora import arrays
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
    "memory_activations",
    "memory_logits",
    "bits_per_parameter",
    *(
        f"{prefix}{name}"
        for prefix in ("", "gaussian_")
        for name in ("nf4_error", "fp4_error", "nf4_fp4_ratio")
    ),
    "distinct_values",
    "gaussian_distinct_values",
)
BOUNDED = ("memory_peak", "memory_weights", "memory_rest", "memory_process", "memory_other")
GIB = 2**30
# of the least that a backward pass must keep; libraries keep norms, copies and attention besides
MOST_ACTIVATIONS = 4


def assert_weights_have_their_shapes() -> None:
    """Check the bytes of the frozen weights against the base model's shapes."""
    actual = outputs.value("memory_weights")
    expected = arrays.measurements()["memory_weights"]
    # the buffers of the rotary embedding come on top
    assert 0 <= actual - expected <= 1e-3 * expected + 4096, (
        f"memory_weights {actual}, by the shapes {expected}"
    )


def assert_memory_adds_up() -> None:
    """Check that the parts of the peak add up to it, and the parts of the rest to the rest.

    These sums are definitions: they hold for wrong parts too, if all of them are wrong together.
    """
    parts = [outputs.value(f"memory_{part}") for part in (*arrays.PARTS, "rest")]
    assert sum(parts) == outputs.value("memory_peak"), f"the parts add up to {sum(parts)}"
    assert all(part > 0 for part in parts), f"a part is not positive: {parts}"

    rest = [runtime(), *(outputs.value(f"memory_{p}") for p in ("activations", "logits", "other"))]
    assert sum(rest) == outputs.value("memory_rest"), f"the parts of the rest add up to {sum(rest)}"
    # The gradients do not exist yet while the activations and the logits do.
    least = -outputs.value("memory_gradients")
    assert outputs.value("memory_other") > least, f"memory_other is not above {least}"


def runtime() -> int:
    """Return what the process held before it had a model, where the peak is of the process."""
    if stored.config()["device"] == "cpu":
        return int(outputs.value("memory_process"))
    return 0


def assert_memory_is_possible() -> None:
    """Bound what cannot be measured again: the peak, and the process before it had a model."""
    peak = outputs.value("memory_peak")
    process = outputs.value("memory_process")
    assert outputs.value("memory_weights") < peak < 6 * GIB, f"memory_peak {peak}"
    assert GIB / 20 < process < 3 * GIB, f"memory_process {process}"
    if stored.config()["device"] == "cpu":
        assert process < peak, (
            f"the process held {process} before it loaded the model, more than at its peak"
        )


def assert_activations_are_possible() -> None:
    """Check that activations are those of the widest batch, and what they must and can hold."""
    entry = outputs.read_json("artifacts/memory.json")
    expected = arrays.widest_batch()
    actual = {name: entry[name] for name in expected}
    assert actual == expected, f"the widest batch is {expected}; memory.json is of {actual}"
    assert all(size >= 0 for size in entry["activations"]), "a stored activation is negative"
    least = arrays.least_activations(expected["tokens"])
    total = outputs.value("memory_activations")
    assert least <= total <= MOST_ACTIVATIONS * least, (
        f"memory_activations {total}; expected {least} to {MOST_ACTIVATIONS} times it"
    )
    logits = outputs.value("memory_logits")
    assert entry["logits"] == logits, f"memory.json has {entry['logits']} bytes of logits"
