"""Loss curves: four shapes, batch sizes at equal tokens, gradient noise, loss along a run's update.

run(ctx)
    measure(ctx)
        trials.run      the four shapes, and batch sizes × rates × seeds (lab/instruments/trials.py)
        _studies        what needs trained adapters: losses along base + t·ΔW, gradients of
                        single examples
    report.…            arrays under artifacts/, then numbers, figures and sentences made from them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.contract import Config, Context, Result, main

if TYPE_CHECKING:
    import numpy as np

    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import SweepContext, TrialResult, Trial

QUESTION = (
    "What does a loss curve tell about a run, and what can it not tell? When do smaller batches "
    "learn more from the same tokens?"
)
HYPOTHESIS = (
    "Learning, overfitting, diverging and standing still leave curves that simple rules tell "
    "apart, if a loss on held-out examples is among them. At equal tokens small batches win where "
    "the learning rate is low, because Adam's steps have a length of their own; where it is high "
    "they win nothing. Gradient noise grows while the loss falls."
)
METHOD = (
    "Four runs are made to have a shape: each example once at a fitting rate; 32 examples again "
    "and again; a rate far too high; a rate far too low. Detectors with thresholds in nats per "
    "token read the token-weighted, debiased moving average of the training loss and the loss on "
    "fixed held-out examples; each may fire on its own run only. Batches of 4, 8 and 16 make 40, "
    "20 and 10 steps of the same 160 examples, at two rates and with three seeds, which draw "
    "adapter and order; differences are paired by seed (t test, 2 degrees of freedom, t(0.975) = "
    "4.30) and by example. The simple noise scale comes from gradients of single held-out examples "
    "with respect to the adapters; held out, because the gradient on an example that was trained "
    "on is no sample of the next batch. The loss is followed from half an update backwards to "
    "twice the update, base + t·ΔW with t from -0.5 to 2. Standard errors over examples count "
    "examples, not tokens. One seed per shape: a shape is an illustration, its detectors' "
    "thresholds were chosen on such runs, and how often they would err on others is not observations."
)
EXPERIMENT = __spec__.name if __name__ == "__main__" and __spec__ else __name__
SHAPES = ("healthy", "overfitting", "diverging", "flat")
RATES = ("low", "high")
ON_A_LINE = ("healthy", "overfitting")  # runs whose update is walked along
# where gradients are looked at: before training, after little, after more
POINTS = ("start", "low", "healthy")


@dataclass(frozen=True)
class LossCurveObservations:
    """All that a run measured.

    shapes: by name; grid: by (rate's name, batch size, seed); repeated: the base on the overfitting
    run's examples; at: the values of t; lines: run -> nats per token of the curve's examples
    [len(at), N]; products: point -> inner products of the gradients [n, n].
    """

    sweep_settings: Mapping[str, object]
    base: Evaluation
    shapes: Mapping[str, TrialResult]
    grid: Mapping[tuple[str, int, int], TrialResult]
    repeated: Evaluation
    at: tuple[float, ...]
    lines: Mapping[str, np.ndarray]
    products: Mapping[str, np.ndarray]


def run(ctx: Context) -> None:
    """Measure, store the arrays, and show what they say."""
    from lab import present
    from lab.loss_curves import figures
    from lab.loss_curves import numbers as report
    from lab.loss_curves import report as text

    observations = measure(ctx)
    report.store(ctx, observations)
    numbers = report.measurements(ctx, observations)
    result = Result(
        EXPERIMENT,
        QUESTION,
        HYPOTHESIS,
        METHOD,
        numbers,
        tables=text.tables(ctx, observations),
        findings=text.findings(ctx, numbers),
        environment=report.facts(ctx, observations),
    )
    present.write(ctx.out, result, figures.figures(ctx, observations, numbers))


def measure(ctx: Context) -> LossCurveObservations:
    """Do the whole experiment; write data and trials below the output folder."""
    from lab.instruments import sweep, trials

    artifacts, workers = ctx.out / "artifacts", ctx.config["workers"]
    shapes, grid = planned_shapes(ctx.config), planned_grid(ctx.config)
    with sweep.open_context(ctx) as (sweep_context, known):
        base = trials.base(sweep_context, artifacts, known=known)
        every = [*shapes.values(), *grid.values()]
        ran = trials.run(
            every, sweep_context, artifacts, workers=workers, known=known, tell=ctx.progress
        )
        total = sum(trial.training.steps for trial in every)
        ctx.progress(total, total, "gradients of single examples, losses along a line")
        at = along(ctx.config)
        found = _studies(
            sweep_context,
            {n: ran[t] for n, t in shapes.items()},
            ran[grid["low", *_standard(ctx.config)]],
            ctx.config,
        )
        facts = sweep_context.description()
    return LossCurveObservations(
        facts,
        base,
        {name: ran[trial] for name, trial in shapes.items()},
        {key: ran[trial] for key, trial in grid.items()},
        found["repeated"],
        at,
        {name: found[f"line {name}"] for name in ON_A_LINE},
        {point: found[f"products {point}"] for point in POINTS},
    )


def planned_shapes(config: Config) -> dict[str, Trial]:
    """The four runs by name, as the config describes them; all start from seed 0."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    lora, planned = LoraSettings(**config["lora"]), {}
    for name in SHAPES:
        told = config["shapes"][name]
        settings = Settings(**told["training"])
        planned[name] = Trial(
            0, settings, lora, examples=told["examples"], curve_every=told["curve_every"]
        )
    return planned


def planned_grid(config: Config) -> dict[tuple[str, int, int], Trial]:
    """Batch sizes × rates × seeds at equal tokens: a tenth of the steps is warm-up."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    lora, examples, planned = LoraSettings(**config["lora"]), config["examples"], {}
    for rate in RATES:
        for size in config["batches"]:
            steps = examples // size
            settings = Settings(
                steps, size, config["rates"][rate], max(1, steps // 10), config["schedule"]
            )
            for seed in config["seeds"]:
                planned[rate, size, seed] = Trial(seed, settings, lora, examples=examples)
    return planned


def along(config: Config) -> tuple[float, ...]:
    """The values of t, evenly from the first to the last."""
    first, last, points = (config["line"][key] for key in ("first", "last", "points"))
    return tuple(first + (last - first) * i / (points - 1) for i in range(points))


def _standard(config: Config) -> tuple[int, int]:
    """Batch size and seed of the trial that other features of the track compare with."""
    return config["batches"][len(config["batches"]) // 2], config["seeds"][0]


def _studies(
    sweep_context: SweepContext, shapes: Mapping[str, TrialResult], low: TrialResult, config: Config
) -> dict[str, Any]:
    """Lines, products, the base on repeated examples, `workers` at a time; each loads its model."""
    from lab.instruments import aside

    count, at = config["noise"]["examples"], along(config)
    adapters = {"start": None, "low": low.folder, "healthy": shapes["healthy"].folder}
    tasks = {f"line {name}": (line, sweep_context, shapes[name].folder, at) for name in ON_A_LINE}
    tasks |= {
        f"products {p}": (products, sweep_context, shapes["healthy"].trial, adapters[p], count)
        for p in POINTS
    }
    tasks["repeated"] = (repeated, sweep_context, shapes["overfitting"].trial)
    return aside.run(tasks, workers=config["workers"], threads=sweep_context.threads)


def line(sweep_context: SweepContext, folder: Path, at: tuple[float, ...]) -> np.ndarray:
    """Losses of the curve's examples at base + t·ΔW of a stored trial: [len(at), N]."""
    from lab.instruments import landscape, trials

    stage = trials.Stage(sweep_context)
    model = stage.adapted(trials.read(folder).trial, folder)
    return landscape.line(model, [e.encoded for e in stage.evaluation[: sweep_context.curve]], at)


def products(
    sweep_context: SweepContext, trial: Trial, folder: Path | None, count: int
) -> np.ndarray:
    """Gradients' inner products of the first `count` held-out examples, at a trial or its start."""
    from lab.instruments import gradient_noise, trials

    stage = trials.Stage(sweep_context)
    model = stage.adapted(trials.read(folder).trial if folder else trial, folder)
    return gradient_noise.products(model, [e.encoded for e in stage.evaluation[:count]])


def repeated(sweep_context: SweepContext, trial: Trial) -> Evaluation:
    """The base on the examples that a trial repeats, in their order."""
    from lab.instruments import evaluation, trials

    stage = trials.Stage(sweep_context)
    return evaluation.evaluate(stage.loaded.model, [e.encoded for e in stage.examples(trial)])


if __name__ == "__main__":
    main(run)
