"""From what basic_qlora measured to its result: arrays on disk, numbers, figures, sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import present
from lab.contract import Context, Measurement, Table, environment

if TYPE_CHECKING:
    from lab.instruments.data import Example
    from lab.instruments.evaluation import Evaluation
    from lab.qlora.experiment import QloraObservations

MIB = 2**20
LAST = 10  # steps that "at the end of training" averages over
PARTS = ("weights", "adapters", "gradients", "optimizer", "rest")


def store(ctx: Context, observations: QloraObservations) -> None:
    """Write the arrays behind the numbers."""
    artifacts, parts = ctx.out / "artifacts", ("losses", "entropies", "hits")
    tokens = {
        f"{name}.{part}": getattr(e, part)
        for name, e in _evaluations(observations).items()
        for part in parts
    }
    _save(
        tokens | {"example_ids": observations.base.evaluation.example_ids},
        artifacts / "evaluation.safetensors",
    )
    curves: dict[str, np.ndarray] = {"first_loss_of_base": np.array([observations.base.first_loss])}
    for name, run in observations.runs.items():
        for field in fields(run.steps[0]):
            curves[f"{name}.{field.name}"] = np.array(
                [getattr(s, field.name) for s in run.steps], dtype=np.float64
            )
        curves[f"{name}.curve"] = np.array(run.curve, dtype=np.float64).reshape(-1, 2)
    _save(curves, artifacts / "training.safetensors")
    weights = {
        f"{of}.{k}": v for of, found in observations.weights.items() for k, v in found.items()
    }
    _save(weights, artifacts / "quantisation.safetensors")
    spoken = [
        {"name": e.name, "prompt": e.encoded.prompt, "before": before, "after": after}
        for e, before, after in _spoken(observations)
    ]
    (artifacts / "generations.json").write_text(
        json.dumps(spoken, indent=1) + "\n", encoding="utf-8"
    )
    stages = [asdict(interval) for interval in observations.intervals]
    (artifacts / "stages.json").write_text(json.dumps(stages, indent=1) + "\n", encoding="utf-8")


def _save(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    # safetensors writes an array's memory as it lies: of a transposed or strided one, other numbers
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    path.chmod(0o644)  # safetensors makes it private to its owner


def _evaluations(observations: QloraObservations) -> dict[str, Evaluation]:
    return {"base": observations.base.evaluation} | {
        name: run.evaluation for name, run in observations.runs.items()
    }


def _spoken(observations: QloraObservations) -> Iterator[tuple[Example, list[int], list[int]]]:
    """Each asked example with the answer before and after training."""
    before, after = observations.base.answers, observations.runs["true"].answers
    return zip(observations.sets.evaluation[: len(before)], before, after, strict=True)


def measurements(observations: QloraObservations) -> dict[str, Measurement]:
    """All numbers by name."""
    return (
        _of_data(observations)
        | _of_evaluation(observations)
        | _of_training(observations)
        | _of_memory(observations)
        | _of_quantisation(observations)
    )


def _of_data(observations: QloraObservations) -> dict[str, Measurement]:
    exact = Measurement.of_exact
    train, evaluation = observations.sets.true, observations.sets.evaluation
    examples = [*train, *evaluation]
    total = sum(len(e.encoded.ids) for e in examples)
    return {
        "train_examples": exact(len(train), "examples"),
        "eval_examples": exact(len(evaluation), "examples"),
        "tokens_per_example": exact(total / len(examples), "tokens"),
        "supervised_share": exact(sum(e.encoded.supervised for e in examples) / total),
        "adapter_parameters": exact(observations.adapter_parameters, "parameters"),
        "adapter_share": exact(observations.adapter_parameters / observations.base.parameters),
        "step_0_difference": exact(
            observations.runs["true"].steps[0].loss - observations.base.first_loss, "nats/token"
        ),
    }


def _of_evaluation(observations: QloraObservations) -> dict[str, Measurement]:
    """Losses, accuracies and entropies on held-out tokens, and paired differences of the losses."""
    from lab.stats.tokens import ratio, token_mean

    example_ids, evaluations = observations.base.evaluation.example_ids, _evaluations(observations)

    def mean(values: np.ndarray, unit: str) -> Measurement:
        found = token_mean(values.astype(np.float64), example_ids)
        return Measurement.of_estimate(found.value, unit, stderr=found.stderr, n=found.n)

    numbers: dict[str, Measurement] = {}
    for name, e in evaluations.items():
        numbers[f"eval_loss_{name}"] = mean(e.losses, "nats/token")
        numbers[f"eval_token_accuracy_{name}"] = mean(e.hits, "")
        numbers[f"eval_entropy_{name}"] = mean(e.entropies, "nats/token")
    base, true, shuffled = (
        evaluations[name].losses.astype(np.float64) for name in ("base", "true", "shuffled")
    )
    numbers["improvement"] = mean(base - true, "nats/token")
    numbers["improvement_shuffled"] = mean(base - shuffled, "nats/token")
    numbers["control_gap"] = mean(shuffled - true, "nats/token")
    share = ratio(base - shuffled, base - true, example_ids)
    numbers["format_share"] = Measurement.of_estimate(
        share.value, "", stderr=share.stderr, n=share.n
    )
    return numbers


def _of_training(observations: QloraObservations) -> dict[str, Measurement]:
    estimate, numbers = Measurement.of_estimate, {}
    for name, run in observations.runs.items():
        last, norms = run.steps[-LAST:], [step.grad_norm for step in run.steps]
        count = sum(step.supervised_tokens for step in last)
        for field, unit in (
            ("loss", "nats/token"),
            ("token_accuracy", ""),
            ("entropy", "nats/token"),
        ):
            mean = sum(getattr(step, field) * step.supervised_tokens for step in last) / count
            numbers[f"last_{field}_{name}"] = estimate(mean, unit, n=len(last))
        numbers[f"grad_norm_median_{name}"] = estimate(float(np.median(norms)), "")
        numbers[f"grad_norm_max_{name}"] = estimate(max(norms), "")
    true = observations.runs["true"].steps
    steps = [step for run in observations.runs.values() for step in run.steps]
    spent = sum(step.seconds for step in steps)
    return numbers | {
        "steps": Measurement.of_exact(len(true), "optimizer steps"),
        "learning_rate_peak": Measurement.of_exact(max(step.learning_rate for step in true)),
        "first_loss": estimate(true[0].loss, "nats/token"),
        "tokens_per_second_total": estimate(sum(s.total_tokens for s in steps) / spent, "tokens/s"),
        "tokens_per_second_supervised": estimate(
            sum(s.supervised_tokens for s in steps) / spent, "tokens/s"
        ),
        "seconds_per_step": estimate(float(np.median([step.seconds for step in steps])), "s"),
        **{
            f"seconds_{stage}": estimate(seconds, "s")
            for stage, seconds in _seconds(observations).items()
        },
    }


def _seconds(observations: QloraObservations) -> dict[str, float]:
    from lab.instruments.stopwatch import seconds

    return seconds(observations.intervals)


def _of_memory(observations: QloraObservations) -> dict[str, Measurement]:
    split = observations.runs["true"].memory
    exact, estimate = Measurement.of_exact, Measurement.of_estimate
    return {
        "memory_peak": estimate(split.peak, "bytes"),
        "memory_weights": exact(split.weights, "bytes"),
        "memory_adapters": exact(split.adapters, "bytes"),
        "memory_gradients": exact(split.gradients, "bytes"),
        "memory_optimizer": exact(split.optimizer, "bytes"),
        "memory_rest": estimate(split.rest, "bytes"),
        "memory_process": estimate(observations.process_bytes, "bytes"),
    }


def _of_quantisation(observations: QloraObservations) -> dict[str, Measurement]:
    """Pooled over the layers: ‖ΔW‖ / ‖W‖ of all weights together, as if they were one matrix."""
    numbers = {"bits_per_parameter": Measurement.of_exact(observations.bits, "bits")}
    for of, prefix in (("layers", ""), ("gaussian", "gaussian_")):
        found = observations.weights[of]
        for kind in ("nf4", "fp4"):
            error = np.sqrt(
                (found[f"{kind}_error"] ** 2 * found["squared_norm"]).sum()
                / found["squared_norm"].sum()
            )
            numbers[f"{prefix}{kind}_error"] = Measurement.of_exact(float(error))
        nf4, fp4 = (numbers[f"{prefix}{kind}_error"].value for kind in ("nf4", "fp4"))
        ratio = nf4 / fp4  # type: ignore[operator]
        numbers[f"{prefix}nf4_fp4_ratio"] = Measurement.of_exact(ratio)
        distinct = (found["distinct_values"] * found["size"]).sum() / found["size"].sum()
        numbers[f"{prefix}distinct_values"] = Measurement.of_exact(
            float(distinct), "values per block of 32"
        )
    return numbers


def answers(observations: QloraObservations) -> Table:
    """What was asked, what the library says, and what the model said before and after."""
    decode = observations.loaded.tokenizer.decode
    rows = [
        (
            e.name,
            e.target,
            decode(before, skip_special_tokens=True),
            decode(after, skip_special_tokens=True),
        )
        for e, before, after in _spoken(observations)
    ]
    return Table("Answers", ("function", "documentation", "before", "after"), tuple(rows))


def findings(numbers: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Sentences that follow from the numbers, and turn with them."""
    value = {name: float(m.value) for name, m in numbers.items()}  # type: ignore[arg-type]
    gap, error = value["control_gap"], numbers["control_gap"].stderr or 0.0
    said = (
        "more than"
        if gap - 2 * error > 0
        else "less than"
        if gap + 2 * error < 0
        else "no more than chance beyond"
    )
    distinct, normal = value["distinct_values"], value["gaussian_distinct_values"]
    grid = "already sit on a 4-bit grid" if distinct <= 16 else "do not sit on a 4-bit grid"
    verdict = (
        "so their error is no evidence for weights that were never quantised"
        if distinct <= 16
        else "as expected"
    )
    q, n = present.quantity, present.number
    return (
        f"On functions of unseen packages the loss went from {q(numbers['eval_loss_base'])} to "
        f"{q(numbers['eval_loss_true'])}; with shuffled answers to "
        f"{q(numbers['eval_loss_shuffled'])}.",
        f"The true answers taught {said} the shuffled ones: paired difference "
        f"{q(numbers['control_gap'])}. {n(100 * value['format_share'], 3)} % of the improvement "
        "came with shuffled answers too: it is format.",
        "At step 0 the adapted model differs from its base by "
        f"{n(value['step_0_difference'], 2)} nats: B = 0.",
        f"NF4 with double quantisation takes {n(value['bits_per_parameter'])} bits per weight "
        f"and moves the weights by {n(100 * value['nf4_error'], 3)} % in norm, FP4 by "
        f"{n(100 * value['fp4_error'], 3)} % (a Gaussian matrix: "
        f"{n(100 * value['gaussian_nf4_error'], 3)} and "
        f"{n(100 * value['gaussian_fp4_error'], 3)} %).",
        f"These weights hold {n(distinct, 3)} different values per block of 32 (a Gaussian matrix: "
        f"{n(normal, 3)}): they {grid}, {verdict}.",
        f"Of {n(value['memory_peak'] / MIB)} MiB at the peak of training, weights hold "
        f"{n(value['memory_weights'] / MIB, 3)}, adapters with gradients and optimizer "
        f"{n(sum(value[f'memory_{part}'] for part in PARTS[1:4]) / MIB, 3)}, and all the rest "
        f"{n(value['memory_rest'] / MIB, 4)}, of which the process had "
        f"{n(value['memory_process'] / MIB, 3)} before it loaded a model.",
    )


def figures(
    ctx: Context, observations: QloraObservations, numbers: Mapping[str, Measurement]
) -> list[present.Figure]:
    """All figures of the report."""
    return [
        loss_figure(observations, ctx.config["data"]["curve"]),
        norm_figure(observations),
        memory_figure(numbers),
    ]


def loss_figure(observations: QloraObservations, examples: int) -> present.Figure:
    """Training loss by step, and loss on the first `examples` held-out ones, of run and control."""
    series = []
    count = int((observations.base.evaluation.example_ids < examples).sum())
    start = float(observations.base.evaluation.losses[:count].mean(dtype="float64"))
    for name, run in observations.runs.items():
        steps, style = len(run.steps), "solid" if name == "true" else "dashed"
        end = float(run.evaluation.losses[:count].mean(dtype="float64"))
        points = [(0, start), *run.curve, (steps, end)]
        losses = [step.loss for step in run.steps]
        series += [
            present.Series(f"training, {name} answers", range(1, steps + 1), losses, kind="points"),
            present.Series(f"held out, {name} answers", *zip(*points, strict=True), style=style),
        ]
    ends = {s.label: s.y[-1] for s in series}
    true, shuffled = (
        present.number(ends[f"held out, {name} answers"]) for name in observations.runs
    )
    return present.Figure(
        name="loss",
        title="Loss in training and on held-out functions",
        caption=(
            f"Held-out loss on {examples} examples goes from {present.number(start)} nats/token "
            f"to {true} with true answers and to {shuffled} with shuffled ones. A training "
            "point is one batch."
        ),
        x_label="optimizer step",
        y_label="loss (nats/token)",
        series=tuple(series),
    )


def norm_figure(observations: QloraObservations) -> present.Figure:
    """Gradient norm per step, before clipping."""
    norms = {
        name: [step.grad_norm for step in run.steps] for name, run in observations.runs.items()
    }
    told = ", ".join(
        f"{present.number(float(np.median(n)), 3)} with {name} answers" for name, n in norms.items()
    )
    return present.Figure(
        name="gradient_norm",
        title="Gradient norm",
        caption=f"L2 norm over all adapters before clipping; median {told}.",
        x_label="optimizer step",
        y_label="gradient norm",
        series=tuple(
            present.Series(
                f"{name} answers",
                range(1, len(n) + 1),
                n,
                style="solid" if name == "true" else "dashed",
            )
            for name, n in norms.items()
        ),
    )


def memory_figure(numbers: Mapping[str, Measurement]) -> present.Figure:
    """Where the peak of a training step goes."""
    observations = [numbers[f"memory_{part}"].value for part in PARTS]
    values = [int(value) / MIB for value in observations]  # type: ignore[arg-type]
    most = PARTS[int(np.argmax(values))]
    return present.Figure(
        name="memory",
        title="Memory at the peak of training",
        caption=(
            f"Together {present.number(sum(values))} MiB; most of it is {most}. Rest is "
            "activations, temporary copies, the interpreter and its libraries."
        ),
        x_label="part",
        y_label="MiB",
        series=(present.Series("peak", PARTS, values, kind="bar"),),
    )


def facts(ctx: Context, observations: QloraObservations) -> dict[str, Any]:
    """What a reader must know to repeat the run."""
    from lab.digests import digest_of

    data = {
        name: digest_of(ctx.out / "artifacts" / f"{name}.jsonl")
        for name in ("train", "control", "evaluation")
    }
    loaded = observations.loaded
    return environment(
        ctx,
        packages=("torch", "transformers", "peft", "bitsandbytes"),
        model=loaded.name,
        model_sha256=loaded.digest,
        calibrated=loaded.calibrated,
        data=data,
        device=ctx.config["device"],
        dtype=ctx.config["dtype"],
        config=dict(ctx.config),
    )
