"""Instrumented QLoRA: what 60 steps teach a small chat model, against a format-only control.

run(ctx)
    measure(ctx)
        load_model            the model, its linear layers in NF4
        prepare_data          training, control and evaluation sets, written as they will be used
        attach                adapters with B = 0
        _evaluate_base        loss on every evaluation token, answers to a few prompts
        _train                from the same start: on the true answers, then on shuffled ones
        _widest_batch         what its forward pass keeps in memory
        _quantisation_error   what 4 bits did to the weights
    store                     arrays under artifacts/
    measurements, answers, findings, figures    made from the observations
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Context, Experiment, Outcome, main
from lab.digests import digest_of
from lab.instruments.arrays import save_arrays
from lab.qlora.figures import figures
from lab.qlora.measured import (
    RUNS,
    Baseline,
    DataSets,
    QloraObservations,
    TrainingRun,
    WidestBatch,
)
from lab.qlora.numbers import measurements
from lab.qlora.report import findings
from lab.qlora.tables import answers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from lab.instruments.chat import Encoded
    from lab.instruments.data import Example
    from lab.instruments.memory import MemorySplit
    from lab.instruments.models import Loaded
    from lab.instruments.stopwatch import Stopwatch
    from lab.instruments.training import Step

EXPERIMENT = Experiment(
    title="Instrumented QLoRA run",
    question=(
        "What does a small chat model learn in 60 QLoRA steps, and how much of it is more than the "
        "format of answers?"
    ),
    hypothesis=(
        "Trained to say what a Python function does, the model's loss on functions of unseen "
        "packages falls by more than one nat. Trained on the same tokens with the answers shuffled "
        "among the prompts it falls too, because answers have a format; but it stays at least 0.2 "
        "nats above the true run, because only true answers follow from the prompt."
    ),
    method=(
        "The linear layers are held in NF4 with double quantisation and get LoRA adapters with "
        "B = 0; adapters alone are trained, with AdamW, on the tokens of the answer. Data: "
        "signature → first docstring line from Python's standard library, each line once, training "
        "and evaluation from different packages. The control starts from the same adapters and "
        "sees the same prompts and the same answers, each answer under another prompt. Every run "
        "is evaluated on the same held-out examples; losses are means over tokens, their standard "
        "errors count examples, and differences are paired. The library's text was probably in the "
        "model's pretraining data, so a low loss is not evidence of understanding; the difference "
        "from the control is what the prompts contributed."
    ),
    headline=("improvement", "control_gap", "format_share", "eval_loss_true", "nf4_error"),
    packages=("torch", "transformers", "peft", "bitsandbytes"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    numbers = measurements(observations)
    return Outcome(
        numbers,
        tables=[answers(observations)],
        findings=findings(numbers),
        figures=figures(observations, numbers, examples=ctx.config["data"]["curve"]),
        environment=_environment(ctx, observations.loaded),
    )


def measure(ctx: Context) -> QloraObservations:
    """Do the whole experiment; write data and adapters below the output folder."""
    from lab.instruments import adapters, memory, quantisation
    from lab.instruments.stopwatch import Stopwatch

    clock = Stopwatch()
    # 1. The memory of the process, with its libraries loaded and no model.
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    process_bytes = memory.resident_bytes()

    # 2. Model, data, adapters.
    with clock("loading"):
        loaded = load_model(ctx)
    with clock("data"):
        sets = prepare_data(ctx, loaded)
    # before adapters are attached; counts 4-bit weights and not their bytes
    parameters = loaded.model.num_parameters()
    model = attach(ctx, loaded)
    start = adapters.state(model)

    # 3. The base, then the run and its control from the same start.
    with model.disable_adapter():
        base = _evaluate_base(ctx, model, sets, parameters, clock)
    runs = {}
    for name in RUNS:
        adapters.restore(model, start)
        runs[name] = _train(ctx, model, sets, name, clock)
        adapters.save(model, ctx.out / "artifacts" / f"adapter_{name}")

    # 4. Memory and weights. After training: the pass of `_widest_batch` must not add to its peak.
    widest = _widest_batch(ctx, model, sets)
    with clock("quantisation"):
        weights = _quantisation_error(ctx)
    return QloraObservations(
        loaded=loaded,
        sets=sets,
        base=base,
        runs=runs,
        widest=widest,
        weights=weights,
        bits=quantisation.bits_per_parameter(model),
        adapter_parameters=sum(p.numel() for p in adapters.parameters(model).values()),
        process_bytes=process_bytes,
        device=ctx.config["device"],
        intervals=clock.intervals,
    )


def load_model(ctx: Context) -> Loaded:
    """Load the profile's model in 4 bits.

    The tiny one passes through a folder, as quantisation happens while loading.
    """
    import torch

    from lab.instruments import models

    def load_quantised(folder: Path) -> Loaded:
        return models.load(
            folder,
            dtype=getattr(torch, ctx.config["dtype"]),
            quantisation=ctx.config["quantisation"],
            device=ctx.config["device"],
        )

    _report_progress(ctx, 0, "loading the model")
    if ctx.config["model"] != "tiny":
        return load_quantised(models.locate(ctx.config["model"], ctx.inputs))
    with tempfile.TemporaryDirectory() as folder:
        models.save(models.tiny(ctx.seed), Path(folder) / "tiny")
        loaded = load_quantised(Path(folder) / "tiny")
        assert loaded.digest  # computed while the file exists
    return loaded


def prepare_data(ctx: Context, loaded: Loaded) -> DataSets:
    """Draw the sets and write them; the run uses exactly what is written."""
    from lab.instruments import data

    # 1. Draw from the source; the seed decides the order of training.
    settings = ctx.config["data"]
    pool = data.load(settings["source"], loaded.tokenizer, max_tokens=settings["max_tokens"])
    drawn = data.split(pool, train=settings["train"], evaluation=settings["evaluation"])
    train = list(drawn.train)
    random.Random(ctx.seed).shuffle(train)
    sets = DataSets(train, data.shuffled(train, ctx.seed), drawn.evaluation)

    # 2. Write.
    folder = ctx.out / "artifacts"
    data.write_examples(folder / "train.jsonl", sets.true)
    data.write_examples(folder / "control.jsonl", sets.shuffled)
    data.write_examples(folder / "evaluation.jsonl", sets.evaluation)
    return sets


def _encoded(examples: Sequence[Example]) -> list[Encoded]:
    """Return the token ids and labels of examples."""
    return [example.encoded for example in examples]


def attach(ctx: Context, loaded: Loaded) -> PeftModel:
    """Attach new adapters and save them."""
    from lab.instruments import adapters

    model = adapters.attach(loaded, adapters.LoraSettings(**ctx.config["lora"]), ctx.seed)
    adapters.save(model, ctx.out / "artifacts" / "adapter_initial")
    return model


def _evaluate_base(
    ctx: Context, model: PeftModel, sets: DataSets, parameters: int, clock: Stopwatch
) -> Baseline:
    """Evaluate the model without training; call it with the adapters disabled."""
    from lab.instruments import evaluation

    _report_progress(ctx, 0, "evaluating the base")
    held_out = _encoded(sets.evaluation)
    batch_size = ctx.config["training"]["batch_size"]
    first_batch = _encoded(sets.true[:batch_size])
    with clock("evaluation"):
        evaluated = evaluation.evaluate(model, held_out)
        first_losses = evaluation.evaluate(model, first_batch).losses
    return Baseline(
        evaluation=evaluated,
        first_loss=float(first_losses.mean(dtype="float64")),
        answers=_generate_answers(ctx, model, sets, clock),
        parameters=parameters,
    )


def _train(
    ctx: Context, model: PeftModel, sets: DataSets, name: str, clock: Stopwatch
) -> TrainingRun:
    """Train on the set `name`, then evaluate; read the curve and the memory on the way."""
    from lab.instruments import evaluation, memory, training

    # 1. What is trained and evaluated.
    settings = training.Settings(**ctx.config["training"])
    every = ctx.config["curve_every"]
    examples = _encoded(getattr(sets, name))
    held_out = _encoded(sets.evaluation)
    steps_before = RUNS.index(name) * settings.steps
    curve: list[tuple[int, float]] = []
    splits: list[MemorySplit] = []

    def after_step(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
        _report_progress(ctx, steps_before + done, f"{name} answers: loss {step.loss:.3f}")
        # the peak so far is of training alone: nothing was evaluated yet
        if done == _steps_of_the_peak(ctx):
            splits.append(memory.split(model, optimizer))
        if done % every == 0 and done < settings.steps:
            with clock("evaluation"):
                losses = evaluation.evaluate(model, held_out[: ctx.config["data"]["curve"]]).losses
            curve.append((done, float(losses.mean(dtype="float64"))))

    # 2. Train.
    memory.reset_peak()
    with clock("training"):
        steps = training.train(model, examples, settings, after_step=after_step, held_out=held_out)

    # 3. Evaluate; the control answers no prompts.
    _report_progress(ctx, steps_before + settings.steps, f"{name} answers: evaluating")
    with clock("evaluation"):
        evaluated = evaluation.evaluate(model, held_out)
    generated: list[list[int]] = []
    if name == "true":
        generated = _generate_answers(ctx, model, sets, clock)
    return TrainingRun(steps, curve, memory=splits[0], evaluation=evaluated, answers=generated)


def _steps_of_the_peak(ctx: Context) -> int:
    """Return the number of optimizer steps after which the peak is read."""
    return int(min(ctx.config["curve_every"], ctx.config["training"]["steps"]))


def _generate_answers(
    ctx: Context, model: PeftModel, sets: DataSets, clock: Stopwatch
) -> list[list[int]]:
    """Return greedy answers (token ids) to the first prompts of the evaluation set."""
    from lab.instruments import evaluation

    prompts = [e.prompt for e in _encoded(sets.evaluation[: ctx.config["generations"]])]
    with clock("generation"):
        generated: list[list[int]] = evaluation.generate(
            model, prompts, max_new_tokens=ctx.config["max_new_tokens"]
        )
    return generated


def _widest_batch(ctx: Context, model: PeftModel, sets: DataSets) -> WidestBatch:
    """Repeat the forward pass of the true run's widest micro-batch and count what it keeps.

    The pass is not timed, and it changes neither weights, gradients nor the random state.
    """
    from lab.instruments import memory, packing, training

    # 1. The micro-batches up to the reading of the peak, packed as training packs them.
    settings = training.Settings(**ctx.config["training"])
    examples = _encoded(sets.true)
    size = settings.batch_size // settings.accumulation
    device = next(model.parameters()).device
    packs = []
    for first in range(0, _steps_of_the_peak(ctx) * settings.batch_size, size):
        micro_batch = [examples[i % len(examples)] for i in range(first, first + size)]
        packs.append(packing.pack(micro_batch, device))

    # 2. The first of those with the longest row: `ids` is [1, T].
    index = max(range(len(packs)), key=lambda i: packs[i].ids.shape[1])
    widest = packs[index]

    # 3. One forward pass in training mode, and the logits that its loss makes.
    def forward() -> torch.Tensor:
        return packing.supervised_tokens(model, widest).losses.sum()

    model.train()
    activations = memory.activation_bytes(model, forward)
    model.eval()
    head = model.get_base_model().get_output_embeddings().weight  # [V, d]
    supervised = len(widest.targets)
    return WidestBatch(
        index=index,
        tokens=widest.ids.shape[1],
        supervised=supervised,
        activations=activations,
        logits=memory.logits_bytes(supervised, head.shape[0], head.dtype),
    )


def _quantisation_error(ctx: Context) -> dict[str, dict[str, np.ndarray]]:
    """Quantise the original weights and a Gaussian matrix of the largest layer's shape."""
    import torch

    from lab.instruments import models, quantisation

    if ctx.config["model"] == "tiny":
        original = models.tiny(ctx.seed)
    else:
        folder = models.locate(ctx.config["model"], ctx.inputs)
        original = models.load(folder, dtype=torch.float32)
    weights = [weight for _, weight in models.linear_weights(original.model)]
    largest = max(weights, key=lambda weight: weight.numel()).shape
    gaussian = torch.randn(largest, generator=torch.Generator().manual_seed(ctx.seed))
    return {
        "layers": quantisation.quantisation_error(weights),
        "gaussian": quantisation.quantisation_error([gaussian]),
    }


def store(folder: Path, observations: QloraObservations) -> None:
    """Write the arrays behind the numbers into `folder`."""
    save_arrays(folder / "evaluation.safetensors", _evaluation_arrays(observations))
    save_arrays(folder / "training.safetensors", _training_arrays(observations))
    quantisation: dict[str, np.ndarray] = {}
    for matrices, arrays in observations.weights.items():
        quantisation |= {f"{matrices}.{name}": array for name, array in arrays.items()}
    save_arrays(folder / "quantisation.safetensors", quantisation)

    generations = []
    for example, before, after in observations.answered():
        prompt = list(example.encoded.prompt)
        generations.append(
            {"name": example.name, "prompt": prompt, "before": before, "after": after}
        )
    _save_json(folder / "generations.json", generations)
    _save_json(folder / "stages.json", [asdict(interval) for interval in observations.intervals])
    _save_json(folder / "memory.json", asdict(observations.widest))


def _evaluation_arrays(observations: QloraObservations) -> dict[str, np.ndarray]:
    """Return loss, entropy and hit [N] of each evaluation's tokens, and their example ids [N]."""
    arrays = {"example_ids": observations.base.evaluation.example_ids}
    for name, evaluation in observations.evaluations.items():
        arrays[f"{name}.losses"] = evaluation.losses
        arrays[f"{name}.entropies"] = evaluation.entropies
        arrays[f"{name}.hits"] = evaluation.hits
    return arrays


def _training_arrays(observations: QloraObservations) -> dict[str, np.ndarray]:
    """Return what each run's steps measured [steps], its curve [points, 2], the base's loss [1]."""
    arrays = {"first_loss_of_base": np.array([observations.base.first_loss])}
    for run_name, run in observations.runs.items():
        for field in fields(run.steps[0]):
            values = [getattr(step, field.name) for step in run.steps]
            arrays[f"{run_name}.{field.name}"] = np.array(values, dtype=np.float64)
        # a run may have no point between its ends
        arrays[f"{run_name}.curve"] = np.array(run.curve, dtype=np.float64).reshape(-1, 2)
    return arrays


def _save_json(path: Path, document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a document as indented JSON."""
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _environment(ctx: Context, loaded: Loaded) -> dict[str, Any]:
    """Return what it takes to repeat this run beyond what every run records."""
    folder = ctx.out / "artifacts"
    names = ("train", "control", "evaluation")
    return {
        "model": loaded.name,
        "model_sha256": loaded.digest,
        "calibrated": loaded.calibrated,
        "data": {name: digest_of(folder / f"{name}.jsonl") for name in names},
        "device": ctx.config["device"],
        "dtype": ctx.config["dtype"],
    }


def _report_progress(ctx: Context, done: int, note: str) -> None:
    """Report progress in optimizer steps of both runs."""
    ctx.progress(done, len(RUNS) * ctx.config["training"]["steps"], note)


if __name__ == "__main__":
    main(EXPERIMENT, run)
