"""Instrumented QLoRA: what 60 steps teach a small chat model, against a format-only control.

run(ctx)
    measure(ctx)
        _load       the model, its linear layers in NF4
        _freeze     training, control and evaluation sets, written as they will be used
        _attach     adapters with B = 0
        _base       the base's loss on every evaluation token, its answers to a few prompts
        _learn      from the same start: on the true answers, then on shuffled ones
        _quantisation_error      what 4 bits did to the weights
    report.…        arrays under artifacts/, then numbers, figures and sentences made from them
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.contract import Context, Result, main

if TYPE_CHECKING:
    import numpy as np
    import torch
    from peft import PeftModel

    from lab.instruments.data import Example
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.memory import MemorySplit
    from lab.instruments.models import Loaded
    from lab.instruments.stopwatch import Interval, Stopwatch
    from lab.instruments.training import Step

QUESTION = (
    "What does a small chat model learn in 60 QLoRA steps, and how much of it is more than the "
    "format of answers?"
)
HYPOTHESIS = (
    "Trained to say what a Python function does, the model's loss on functions of unseen packages "
    "falls by more than one nat. Trained on the same tokens with the answers shuffled among the "
    "prompts it falls too, because answers have a format; but it stays at least 0.2 nats above the "
    "true run, because only true answers follow from the prompt."
)
METHOD = (
    "The linear layers are held in NF4 with double quantisation and get LoRA adapters with B = 0; "
    "adapters alone are trained, with AdamW, on the tokens of the answer. Data: signature → first "
    "docstring line from Python's standard library, each line once, training and evaluation from "
    "different packages. The control starts from the same adapters and sees the same prompts and "
    "the same answers, each answer under another prompt. Every run is evaluated on the same "
    "held-out examples; losses are means over tokens, their standard errors count examples, and "
    "differences are paired. The library's text was probably in the model's pretraining data, so a "
    "low loss is not evidence of understanding; the difference from the control is what the "
    "prompts contributed."
)
EXPERIMENT = __spec__.name if __name__ == "__main__" and __spec__ else __name__
RUNS = ("true", "shuffled")


@dataclass(frozen=True)
class Sets:
    """Frozen data: training examples in order, the same with answers shuffled, held-out ones."""

    true: Sequence[Example]
    shuffled: Sequence[Example]
    evaluation: Sequence[Example]


@dataclass(frozen=True)
class Base:
    """What the model does before it learns.

    first_loss: nats/token on the first training batch; answers: token ids.
    """

    evaluation: Evaluation
    first_loss: float
    answers: list[list[int]]
    parameters: int


@dataclass(frozen=True)
class Learned:
    """One training run.

    curve: (optimizer steps done, loss in nats/token on the curve's examples), between the ends.
    """

    steps: list[Step]
    curve: list[tuple[int, float]]
    memory: MemorySplit
    evaluation: Evaluation
    answers: list[list[int]]


@dataclass(frozen=True)
class QloraObservations:
    """All that a run measured.

    weights: arrays by "layers" and "gaussian"; process_bytes: before a model was loaded.
    """

    loaded: Loaded
    sets: Sets
    base: Base
    runs: Mapping[str, Learned]
    weights: Mapping[str, Mapping[str, np.ndarray]]
    bits: float
    adapter_parameters: int
    process_bytes: int
    intervals: Sequence[Interval]


def run(ctx: Context) -> None:
    """Measure, store the arrays, and show what they say."""
    from lab import present
    from lab.qlora import report

    observations = measure(ctx)
    report.store(ctx, observations)
    numbers = report.measurements(observations)
    result = Result(
        EXPERIMENT,
        QUESTION,
        HYPOTHESIS,
        METHOD,
        numbers,
        tables=(report.answers(observations),),
        findings=report.findings(numbers),
        environment=report.facts(ctx, observations),
    )
    present.write(ctx.out, result, report.figures(ctx, observations, numbers))


def measure(ctx: Context) -> QloraObservations:
    """Do the whole experiment; write data and adapters below the output folder."""
    from lab.instruments import adapters, memory, quantisation
    from lab.instruments.stopwatch import Stopwatch

    clock = Stopwatch()
    # Loaded now, so that the process is whole when its memory is read.
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    process_bytes = memory.resident_bytes()
    with clock("loading"):
        loaded = _load(ctx)
    with clock("data"):
        sets = _freeze(ctx, loaded)
    # 4-bit tensors count by their weights, not by their bytes
    parameters = loaded.model.num_parameters()
    model = _attach(ctx, loaded)
    start = adapters.state(model)
    with model.disable_adapter():
        base = _base(ctx, model, sets, parameters, clock)
    runs = {}
    for name in RUNS:
        adapters.restore(model, start)
        runs[name] = _learn(ctx, model, sets, name, clock)
        adapters.save(model, ctx.out / "artifacts" / f"adapter_{name}")
    with clock("quantisation"):
        weights = _quantisation_error(ctx)
    return QloraObservations(
        loaded=loaded,
        sets=sets,
        base=base,
        runs=runs,
        weights=weights,
        bits=quantisation.bits_per_parameter(model),
        adapter_parameters=sum(p.numel() for p in adapters.parameters(model).values()),
        process_bytes=process_bytes,
        intervals=clock.intervals,
    )


def _load(ctx: Context) -> Loaded:
    """The profile's model in 4 bits.

    The tiny one passes through a folder, as quantisation happens while loading.
    """
    import torch

    from lab.instruments import models

    def quantised(folder: Path) -> Loaded:
        dtype, kind = getattr(torch, ctx.config["dtype"]), ctx.config["quantisation"]
        return models.load(folder, dtype=dtype, quantisation=kind, device=ctx.config["device"])

    _tell(ctx, 0, "loading the model")
    if ctx.config["model"] != "tiny":
        return quantised(models.locate(ctx.config["model"], ctx.inputs))
    with tempfile.TemporaryDirectory() as folder:
        models.save(models.tiny(ctx.seed), Path(folder) / "tiny")
        loaded = quantised(Path(folder) / "tiny")
        assert loaded.digest  # computed while the file is there
    return loaded


def _freeze(ctx: Context, loaded: Loaded) -> Sets:
    """Draw the sets and write them; the run uses exactly what is written."""
    from lab.instruments import data

    settings = ctx.config["data"]
    pool = data.load(settings["source"], loaded.tokenizer, max_tokens=settings["max_tokens"])
    drawn = data.split(pool, train=settings["train"], evaluation=settings["evaluation"])
    train = list(drawn.train)
    random.Random(ctx.seed).shuffle(train)
    sets = Sets(train, data.shuffled(train, ctx.seed), drawn.evaluation)
    for name, examples in (
        ("train", sets.true),
        ("control", sets.shuffled),
        ("evaluation", sets.evaluation),
    ):
        data.freeze(ctx.out / "artifacts" / f"{name}.jsonl", examples)
    return sets


def _attach(ctx: Context, loaded: Loaded) -> PeftModel:
    from lab.instruments import adapters

    model = adapters.attach(loaded, adapters.LoraSettings(**ctx.config["lora"]), ctx.seed)
    adapters.save(model, ctx.out / "artifacts" / "adapter_initial")
    return model


def _base(ctx: Context, model: PeftModel, sets: Sets, parameters: int, clock: Stopwatch) -> Base:
    """The model as it came; called with the adapters switched off."""
    from lab.instruments import evaluation

    _tell(ctx, 0, "evaluating the base")
    first_batch = [e.encoded for e in sets.true[: ctx.config["training"]["batch_size"]]]
    with clock("evaluation"):
        found = evaluation.evaluate(model, [e.encoded for e in sets.evaluation])
        first_loss = float(evaluation.evaluate(model, first_batch).losses.mean(dtype="float64"))
    return Base(found, first_loss, _answers(ctx, model, sets, clock), parameters)


def _learn(ctx: Context, model: PeftModel, sets: Sets, name: str, clock: Stopwatch) -> Learned:
    """Train on the set `name`, then evaluate; the curve and the memory are measured on the way."""
    from lab.instruments import evaluation, memory, training

    settings, every = training.Settings(**ctx.config["training"]), ctx.config["curve_every"]
    held_out = [e.encoded for e in sets.evaluation]
    before = RUNS.index(name) * settings.steps
    curve: list[tuple[int, float]] = []
    peaks: list[MemorySplit] = []

    def after_step(done: int, step: Step, optimizer: torch.optim.Optimizer) -> None:
        _tell(ctx, before + done, f"{name} answers: loss {step.loss:.3f}")
        # the peak so far is of training alone: nothing was evaluated yet
        if done == min(every, settings.steps):
            peaks.append(memory.split(model, optimizer))
        if done % every == 0 and done < settings.steps:
            with clock("evaluation"):
                losses = evaluation.evaluate(model, held_out[: ctx.config["data"]["curve"]]).losses
            curve.append((done, float(losses.mean(dtype="float64"))))

    memory.reset_peak()
    with clock("training"):
        examples = [e.encoded for e in getattr(sets, name)]
        steps = training.train(model, examples, settings, after_step=after_step, held_out=held_out)
    _tell(ctx, before + settings.steps, f"{name} answers: evaluating")
    with clock("evaluation"):
        found = evaluation.evaluate(model, held_out)
    answers = _answers(ctx, model, sets, clock) if name == "true" else []
    return Learned(steps, curve, peaks[0], found, answers)


def _answers(ctx: Context, model: PeftModel, sets: Sets, clock: Stopwatch) -> list[list[int]]:
    """Greedy answers to the first prompts of the evaluation set."""
    from lab.instruments import evaluation

    prompts = [e.encoded.prompt for e in sets.evaluation[: ctx.config["generations"]]]
    with clock("generation"):
        return evaluation.generate(model, prompts, max_new_tokens=ctx.config["max_new_tokens"])


def _quantisation_error(ctx: Context) -> dict[str, dict[str, np.ndarray]]:
    """What 4 bits do to the weights as they were and to a Gaussian of the largest layer's shape."""
    import torch

    from lab.instruments import models, quantisation

    tiny, name = ctx.config["model"] == "tiny", ctx.config["model"]
    whole = (
        models.tiny(ctx.seed)
        if tiny
        else models.load(models.locate(name, ctx.inputs), dtype=torch.float32)
    )
    weights = [weight for _, weight in models.linear_weights(whole.model)]
    shape = max((weight.shape for weight in weights), key=lambda shape: shape.numel())
    gaussian = torch.randn(shape, generator=torch.Generator().manual_seed(ctx.seed))
    return {
        "layers": quantisation.quantisation_error(weights),
        "gaussian": quantisation.quantisation_error([gaussian]),
    }


def _tell(ctx: Context, done: int, note: str) -> None:
    """Progress, in optimizer steps of both runs."""
    ctx.progress(done, len(RUNS) * ctx.config["training"]["steps"], note)


if __name__ == "__main__":
    main(run)
