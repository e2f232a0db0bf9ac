"""The measurements of the instrumented QLoRA run: pure functions of what was observed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab.contract import Measurement
from lab.instruments import stopwatch
from lab.qlora.measured import QloraObservations
from lab.stats.tokens import ratio, token_mean

MIB = 2**20
LAST = 10  # steps that "at the end of training" averages over
# what the peak of a training step consists of, in the order shown
PEAK_PARTS = (
    "weights",
    "adapters",
    "gradients",
    "optimizer",
    "runtime",
    "activations",
    "logits",
    "other",
)


def measurements(observations: QloraObservations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _of_data(observations)
        | _of_evaluation(observations)
        | _of_training(observations)
        | _of_memory(observations)
        | _of_quantisation(observations)
    )


def peak_parts(measurements: Mapping[str, Measurement]) -> dict[str, float]:
    """Return part -> MiB of the peak; they add up to it.

    runtime is the process before it loaded a model. It is 0 where the peak is of a GPU's tensors.
    """
    mib = {
        name.removeprefix("memory_"): m.number / MIB
        for name, m in measurements.items()
        if name.startswith("memory_")
    }
    mib["runtime"] = mib["rest"] - mib["activations"] - mib["logits"] - mib["other"]
    return {part: mib[part] for part in PEAK_PARTS}


def _of_data(observations: QloraObservations) -> dict[str, Measurement]:
    """Return sizes and shares of the data and the adapters, and the difference at step 0."""
    exact = Measurement.of_exact
    train = observations.sets.true
    evaluation = observations.sets.evaluation
    examples = [*train, *evaluation]
    total = sum(len(e.encoded.ids) for e in examples)
    supervised = sum(e.encoded.supervised for e in examples)
    first_step = observations.runs["true"].steps[0]
    difference = first_step.loss - observations.base.first_loss
    return {
        "train_examples": exact(len(train), "examples"),
        "eval_examples": exact(len(evaluation), "examples"),
        "tokens_per_example": exact(total / len(examples), "tokens"),
        "supervised_share": exact(supervised / total),
        "adapter_parameters": exact(observations.adapter_parameters, "parameters"),
        "adapter_share": exact(observations.adapter_parameters / observations.base.parameters),
        "step_0_difference": exact(difference, "nats/token"),
    }


def _of_evaluation(observations: QloraObservations) -> dict[str, Measurement]:
    """Return losses, accuracies and entropies of held-out tokens, and paired loss differences."""
    example_ids = observations.base.evaluation.example_ids
    measurements: dict[str, Measurement] = {}

    def add_mean(name: str, values: np.ndarray, unit: str) -> None:
        mean = token_mean(values.astype(np.float64), example_ids)
        measurements[name] = Measurement.of_estimate(mean.value, unit, stderr=mean.stderr, n=mean.n)

    # 1. Each evaluation by itself; all arrays [N], one value per supervised token.
    losses = {}
    for name, evaluation in observations.evaluations.items():
        add_mean(f"eval_loss_{name}", evaluation.losses, "nats/token")
        add_mean(f"eval_token_accuracy_{name}", evaluation.hits, "")
        add_mean(f"eval_entropy_{name}", evaluation.entropies, "nats/token")
        losses[name] = evaluation.losses.astype(np.float64)

    # 2. Differences, paired token by token.
    gain = losses["base"] - losses["true"]
    gain_shuffled = losses["base"] - losses["shuffled"]
    add_mean("improvement", gain, "nats/token")
    add_mean("improvement_shuffled", gain_shuffled, "nats/token")
    add_mean("control_gap", losses["shuffled"] - losses["true"], "nats/token")

    # 3. How much of the gain the control has too.
    share = ratio(gain_shuffled, gain, example_ids)
    measurements["format_share"] = Measurement.of_estimate(
        share.value, "", stderr=share.stderr, n=share.n
    )
    return measurements


def _of_training(observations: QloraObservations) -> dict[str, Measurement]:
    """Return what the optimizer steps measured, and how long they and each stage took."""
    estimate = Measurement.of_estimate
    measurements: dict[str, Measurement] = {}

    # 1. Each run: the mean over the supervised tokens of its last steps, and its gradient norms.
    fields = (("loss", "nats/token"), ("token_accuracy", ""), ("entropy", "nats/token"))
    for name, run in observations.runs.items():
        last = run.steps[-LAST:]
        count = sum(step.supervised_tokens for step in last)
        for field, unit in fields:
            total = sum(getattr(step, field) * step.supervised_tokens for step in last)
            measurements[f"last_{field}_{name}"] = estimate(total / count, unit, n=len(last))
        norms = [step.grad_norm for step in run.steps]
        measurements[f"grad_norm_median_{name}"] = estimate(float(np.median(norms)), "")
        measurements[f"grad_norm_max_{name}"] = estimate(max(norms), "")

    # 2. The plan of the true run.
    true = observations.runs["true"].steps
    peak_rate = max(step.learning_rate for step in true)
    measurements["steps"] = Measurement.of_exact(len(true), "optimizer steps")
    measurements["learning_rate_peak"] = Measurement.of_exact(peak_rate)
    measurements["first_loss"] = estimate(true[0].loss, "nats/token")

    # 3. Time, over the steps of both runs.
    steps = [*true, *observations.runs["shuffled"].steps]
    durations = [step.seconds for step in steps]
    total_rate = sum(step.total_tokens for step in steps) / sum(durations)
    supervised_rate = sum(step.supervised_tokens for step in steps) / sum(durations)
    measurements["tokens_per_second_total"] = estimate(total_rate, "tokens/s")
    measurements["tokens_per_second_supervised"] = estimate(supervised_rate, "tokens/s")
    measurements["seconds_per_step"] = estimate(float(np.median(durations)), "s")
    for stage, seconds in stopwatch.seconds(observations.intervals).items():
        measurements[f"seconds_{stage}"] = estimate(seconds, "s")
    return measurements


def _of_memory(observations: QloraObservations) -> dict[str, Measurement]:
    """Return the parts of the true run's peak, in bytes.

    rest = runtime + activations + logits + other; on a CPU the runtime is memory_process. On a GPU
    other may be below 0, by at most the gradients: they do not exist yet while the logits do.
    """
    exact = Measurement.of_exact
    estimate = Measurement.of_estimate
    split = observations.runs["true"].memory
    activations = sum(observations.widest.activations)
    logits = observations.widest.logits
    runtime = 0
    if observations.device == "cpu":
        runtime = observations.process_bytes
    return {
        "memory_peak": estimate(split.peak, "bytes"),
        "memory_weights": exact(split.weights, "bytes"),
        "memory_adapters": exact(split.adapters, "bytes"),
        "memory_gradients": exact(split.gradients, "bytes"),
        "memory_optimizer": exact(split.optimizer, "bytes"),
        "memory_rest": estimate(split.rest, "bytes"),
        "memory_process": estimate(observations.process_bytes, "bytes"),
        "memory_activations": exact(activations, "bytes"),
        "memory_logits": exact(logits, "bytes"),
        "memory_other": estimate(split.rest - runtime - activations - logits, "bytes"),
    }


def _of_quantisation(observations: QloraObservations) -> dict[str, Measurement]:
    """Return bits per weight and errors pooled over the layers.

    An error is ‖ΔW‖ / ‖W‖ of all weights together, as if they were one matrix.
    """
    exact = Measurement.of_exact
    measurements = {"bits_per_parameter": exact(observations.bits, "bits")}
    for matrices, prefix in (("layers", ""), ("gaussian", "gaussian_")):
        weights = observations.weights[matrices]  # arrays [layers]
        norms = weights["squared_norm"]
        sizes = weights["size"]
        errors = {}
        for kind in ("nf4", "fp4"):
            squared = (weights[f"{kind}_error"] ** 2 * norms).sum() / norms.sum()
            errors[kind] = float(np.sqrt(squared))
            measurements[f"{prefix}{kind}_error"] = exact(errors[kind])
        measurements[f"{prefix}nf4_fp4_ratio"] = exact(errors["nf4"] / errors["fp4"])
        distinct = float((weights["distinct_values"] * sizes).sum() / sizes.sum())
        measurements[f"{prefix}distinct_values"] = exact(distinct, "values per block of 32")
    return measurements
