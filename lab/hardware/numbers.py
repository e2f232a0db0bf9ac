"""The numbers of the measured half: errors of the models, rates, receipts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.contract import Measurement
from lab.hardware import fitting
from lab.hardware.catalogue import Catalogue
from lab.hardware.feasibility import Machine, Workload, estimate, machines_of
from lab.hardware.fitting import Predictions
from lab.hardware.measured import HardwareObservations, TrainingRun
from lab.instruments.memory_model import FLOAT32, MemoryFit, TrainingSetup, memory
from lab.instruments.throughput_model import MachineRates, TimeFit, step_seconds
from lab.stats.jackknife import jackknife_stderr

GIGA = 1e9
LONG = 2048  # tokens
EIGHT = "Llama-3.1-8B"
# the training that stands for the experiments when they are scaled to larger models
REFERENCE = TrainingSetup("lora", batch=8, sequence=32, supervised=0.4, rank=16)
LARGER = ("SmolLM2-360M", "Llama-3.2-1B", EIGHT)
RATE_NAMES = {  # rate -> measurement, unit
    "layer": ("gemm_float32", "GFLOP/s"),
    "adapter": ("gemm_adapter", "GFLOP/s"),
    "head": ("gemm_head", "GFLOP/s"),
    "attention": ("attention_rate", "GFLOP/s"),
    "bandwidth": ("bandwidth", "GB/s"),
    "dequantised": ("dequantised_rate", "billion weights/s"),
}


@dataclass(frozen=True)
class Fits:
    """Both models fitted, and what they say of all runs.

    memory: of a plain step, which returns freed memory at once; loop: of the lab's own loop, which
    keeps it and is what the decision counts.
    """

    rates: MachineRates
    memory_fit: MemoryFit
    time_fit: TimeFit
    memory: Predictions
    loop: Predictions
    time: Predictions
    kept_factor: float

    def machine(self, memory_bytes: int, name: str) -> Machine:
        """Return this machine: what its loop keeps is part of its memory."""
        return Machine(
            name=name,
            memory_bytes=memory_bytes,
            rates=self.rates,
            memory_fit=replace(self.memory_fit, activation_factor=self.kept_factor),
            time_fit=self.time_fit,
            is_measured=True,
        )


def fits(observations: HardwareObservations) -> Fits:
    """Return both models, fitted to the runs of that role."""
    runs, shapes = observations.runs, observations.shapes
    fitted = [run for run in runs if run.plan.role == "fit"]
    rates = fitting.rates_of(observations.timings)
    memory_fit = fitting.fit_memory(fitted, shapes)
    factor = fitting.kept_factor(fitted, shapes, memory_fit)
    time_fit = fitting.fit_time(fitted, shapes, rates)
    return Fits(
        rates=rates,
        memory_fit=memory_fit,
        time_fit=time_fit,
        memory=fitting.predict_memory(runs, shapes, memory_fit),
        loop=fitting.predict_loop(runs, shapes, memory_fit, factor),
        time=fitting.predict_time(runs, shapes, rates, time_fit),
        kept_factor=factor,
    )


def measurements(
    observations: HardwareObservations, models: Fits, catalogue: Catalogue
) -> dict[str, Measurement]:
    """Return all measurements of the measured half."""
    return {
        **of_memory(observations, models),
        **of_time(observations, models),
        **of_rates(observations),
        **of_counts(observations),
        **of_models(observations, catalogue),
        **of_receipts(observations),
    }


def of_memory(observations: HardwareObservations, models: Fits) -> dict[str, Measurement]:
    """Return the errors of the memory model over the held-out runs, and what was fitted."""
    runs, shapes = observations.runs, observations.shapes
    held = fitting.names_of(runs, "held-out")
    fitted = fitting.names_of(runs, "fit")
    errors = models.memory.errors(held)
    control = fitting.constant(models.memory, fitted).errors(held)

    def worst(some: Sequence[TrainingRun]) -> float:
        fit = fitting.fit_memory(some, shapes)
        return max(fitting.predict_memory(runs, shapes, fit).errors(held))

    def worst_of_loop(some: Sequence[TrainingRun]) -> float:
        fit = fitting.fit_memory(some, shapes)
        factor = fitting.kept_factor(some, shapes, fit)
        return max(fitting.predict_loop(runs, shapes, fit, factor).errors(held))

    without = fitting.without_each(runs, worst)
    loop_without = fitting.without_each(runs, worst_of_loop)
    return {
        "memory_error_max": Measurement.of_estimate(
            max(errors), stderr=jackknife_stderr(without), n=len(without), unit=""
        ),
        "memory_error_loop": Measurement.of_estimate(
            max(models.loop.errors(held)),
            "",
            stderr=jackknife_stderr(loop_without),
            n=len(loop_without),
        ),
        "memory_error_mean": _mean(errors),
        "memory_error_constant": Measurement.of_estimate(max(control), ""),
        "memory_workspace": Measurement.of_estimate(models.memory_fit.workspace, "bytes"),
        "memory_runtime": Measurement.of_estimate(models.memory_fit.runtime, "bytes"),
        "memory_kept_factor": Measurement.of_estimate(models.kept_factor, "times"),
    }


def of_time(observations: HardwareObservations, models: Fits) -> dict[str, Measurement]:
    """Return the errors of the throughput model over the held-out runs, and what was fitted."""
    runs = observations.runs
    held = fitting.names_of(runs, "held-out")
    errors = models.time.errors(held)
    control = fitting.constant(models.time, fitting.names_of(runs, "fit")).errors(held)
    without = [
        max(fits(replace(observations, runs=tuple(some))).time.errors(held))
        for some in fitting.without_each_step(runs)
    ]
    return {
        "time_error_max": Measurement.of_estimate(
            max(errors), "", stderr=jackknife_stderr(without), n=len(without)
        ),
        "time_error_mean": _mean(errors),
        "time_error_constant": Measurement.of_estimate(max(control), ""),
        "time_products": Measurement.of_estimate(models.time_fit.products, "times"),
        "time_passes": Measurement.of_estimate(models.time_fit.passes, "passes"),
        "time_operations": Measurement.of_estimate(models.time_fit.operations, "operations"),
    }


def of_rates(observations: HardwareObservations) -> dict[str, Measurement]:
    """Return this machine's rates: the median of the repetitions, the mean's standard error."""
    rates = {}
    for name, (measurement, unit) in RATE_NAMES.items():
        timing = observations.timings[name]
        values = [timing.amount / seconds / GIGA for seconds in timing.seconds]
        rates[measurement] = Measurement.of_estimate(
            timing.amount / statistics.median(timing.seconds) / GIGA,
            unit,
            stderr=_mean(values).stderr,
            n=len(values),
        )
    return rates


def of_counts(observations: HardwareObservations) -> dict[str, Measurement]:
    """Return by how much tensors differ at most from what the closed form says of them."""
    largest: dict[str, float] = dict.fromkeys(
        ("weights", "absmax", "trained", "gradients", "optimizer", "activations"), 0.0
    )
    for run in observations.runs:
        for name, expected in counts(run, observations).items():
            actual = getattr(run, name)
            if expected:
                largest[name] = max(largest[name], abs(actual / expected - 1))
    errors = {f"{name}_count_error": Measurement.of_exact(e) for name, e in largest.items()}
    return {
        "configurations": Measurement.of_exact(len(observations.runs), "configurations"),
        "held_out": Measurement.of_exact(
            len(fitting.names_of(observations.runs, "held-out")), "configurations"
        ),
        **errors,
    }


def counts(run: TrainingRun, observations: HardwareObservations) -> dict[str, float]:
    """Return the bytes of a run's tensors by the closed form."""
    parts = memory(observations.shapes[run.plan.shape], run.plan.setup)
    is_full = run.plan.setup.method == "full"
    frozen = parts.weights
    trained = parts.adapters
    if is_full:
        frozen, trained = parts.weights_other, parts.weights_linear
    return {
        "weights": frozen,
        "absmax": parts.absmax,
        "trained": trained,
        "gradients": parts.gradients,
        "optimizer": parts.optimizer,
        "activations": parts.activations,
    }


def of_models(observations: HardwareObservations, catalogue: Catalogue) -> dict[str, Measurement]:
    """Return arithmetic on the model itself and on one of 8 billion parameters, on a GPU."""
    base = observations.shapes["base"]
    stored = memory(base, TrainingSetup("qlora", batch=1, sequence=LONG, weight_bytes=2))
    logits = LONG * base.vocabulary * FLOAT32
    gpu = machines_of(catalogue, None)[0]
    eight = next(model.shape for model in catalogue.models if model.name == EIGHT)
    sizes = {}
    for method in ("qlora", "full"):
        workload = Workload(eight, method, LONG, 1, catalogue.assumptions.rank)
        sizes[method] = estimate(gpu, workload, 0.0).bytes / GIGA
    return {
        "parameters": Measurement.of_exact(base.total, "parameters"),
        "linear_parameters": Measurement.of_exact(base.linear_parameters, "parameters"),
        "logits_over_weights": Measurement.of_exact(logits / stored.weights, "times"),
        "qlora_8b_gigabytes": Measurement.of_exact(sizes["qlora"], "GB"),
        "full_8b_gigabytes": Measurement.of_exact(sizes["full"], "GB"),
    }


def of_receipts(observations: HardwareObservations) -> dict[str, Measurement]:
    """Return what all verified experiments took together."""
    receipts = observations.receipts
    largest = max((receipt.peak_bytes for receipt in receipts), default=0)
    return {
        "experiments": Measurement.of_exact(len(receipts), "experiments"),
        "experiments_seconds": Measurement.of_estimate(
            float(sum(receipt.seconds for receipt in receipts)), "s"
        ),
        "experiments_cpu_seconds": Measurement.of_estimate(
            float(sum(receipt.cpu_seconds for receipt in receipts)), "s"
        ),
        "experiments_peak": Measurement.of_estimate(largest, "bytes"),
    }


def scale_to(
    model: str, observations: HardwareObservations, models: Fits, catalogue: Catalogue
) -> tuple[float, float]:
    """Return by what an experiment's time grows [times] and its memory [bytes] at a larger model.

    By the reference training on this machine.
    """
    base = observations.shapes["base"]
    shape = next(one.shape for one in catalogue.models if one.name == model)
    seconds = [step_seconds(one, REFERENCE, models.rates, models.time_fit) for one in (shape, base)]
    bytes_ = [memory(one, REFERENCE, models.memory_fit).total for one in (shape, base)]
    return seconds[0] / seconds[1], bytes_[0] - bytes_[1]


def _mean(values: Sequence[float]) -> Measurement:
    sample = Measurement.of_sample(values, "")
    return Measurement.of_estimate(sample.value, "", stderr=sample.stderr, n=sample.n)
