"""The findings of the instrumented QLoRA run: sentences made from its measurements."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.qlora.numbers import peak_parts

GRID = 16  # values per block of 32; weights with no more are those of a 4-bit grid


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return the sentences that follow from the measurements; they change with them."""
    return (
        *_on_learning(measurements),
        *_on_quantisation(measurements),
        _on_memory(measurements),
    )


def _on_learning(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Compare the base, the run and its control."""
    quantity = present.quantity
    gap = measurements["control_gap"]
    error = gap.stderr or 0.0
    if gap.number - 2 * error > 0:
        verdict = "more than"
    elif gap.number + 2 * error < 0:
        verdict = "less than"
    else:
        verdict = "no more than chance beyond"
    share = present.number(100 * measurements["format_share"].number, 3)
    difference = present.number(measurements["step_0_difference"].number, 2)
    return (
        "On functions of unseen packages the loss went from "
        f"{quantity(measurements['eval_loss_base'])} to "
        f"{quantity(measurements['eval_loss_true'])}; with shuffled answers to "
        f"{quantity(measurements['eval_loss_shuffled'])}.",
        f"The true answers taught {verdict} the shuffled ones: paired difference "
        f"{quantity(gap)}. {share} % of the improvement came with shuffled answers too: it is "
        "format.",
        f"At step 0 the adapted model differs from its base by {difference} nats: B = 0.",
    )


def _on_quantisation(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Describe the cost of 4 bits, and whether these weights are a fair test of it."""

    def percent(name: str) -> str:
        return present.number(100 * measurements[name].number, 3)

    distinct = measurements["distinct_values"].number
    gaussian_distinct = measurements["gaussian_distinct_values"].number
    if distinct <= GRID:
        verdict = (
            "they already sit on a 4-bit grid, so their error is no evidence for weights that were "
            "never quantised"
        )
    else:
        verdict = "they do not sit on a 4-bit grid, as expected"
    return (
        "NF4 with double quantisation takes "
        f"{present.number(measurements['bits_per_parameter'].number)} bits per weight and moves "
        f"the weights by {percent('nf4_error')} % in norm, FP4 by {percent('fp4_error')} % (a "
        f"Gaussian matrix: {percent('gaussian_nf4_error')} and "
        f"{percent('gaussian_fp4_error')} %).",
        f"These weights hold {present.number(distinct, 3)} different values per block of 32 (a "
        f"Gaussian matrix: {present.number(gaussian_distinct, 3)}): {verdict}.",
    )


def _on_memory(measurements: Mapping[str, Measurement]) -> str:
    """Describe where the peak of a training step goes; the parts are in MiB."""

    def mib(size: float) -> str:
        return f"{present.number(size, 3)} MiB"

    parts = peak_parts(measurements)
    trained = parts["adapters"] + parts["gradients"] + parts["optimizer"]
    process = ""
    if parts["runtime"]:  # 0 where the peak is of a GPU's tensors
        process = f"the process before it loaded a model {mib(parts['runtime'])}, "
    return (
        f"Of {present.quantity(measurements['memory_peak'])} at the peak of training, weights hold "
        f"{mib(parts['weights'])}, adapters with gradients and optimizer {mib(trained)}, {process}"
        f"activations of the widest batch {mib(parts['activations'])}, logits and their gradient "
        f"{mib(parts['logits'])}, and all other memory {mib(parts['other'])}."
    )
