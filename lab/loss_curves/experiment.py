"""Loss curves: four shapes, batch sizes at equal tokens, gradient noise, loss along an update.

run(ctx)
    measure(ctx)
        trials.run      the four shapes, and batch sizes × rates × seeds (lab/instruments/trials.py)
        _follow_up      what needs trained adapters: losses along base + t·ΔW, gradients of
                        single examples
    store               arrays under artifacts/
    measurements, tables, findings, figures    made from the observations
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Config, Context, Experiment, Outcome, main
from lab.digests import digest_of
from lab.instruments.arrays import save_arrays
from lab.loss_curves.figures import figures
from lab.loss_curves.measured import (
    POINTS,
    RATES,
    RUNS_ALONG_UPDATE,
    SHAPES,
    LossCurveObservations,
    LossCurvePlan,
)
from lab.loss_curves.numbers import measurements
from lab.loss_curves.report import findings
from lab.loss_curves.tables import tables

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import SweepContext, Trial, TrialResult

EXPERIMENT = Experiment(
    title="Loss-curve analysis",
    question=(
        "What does a loss curve tell about a run, and what can it not tell? When do smaller "
        "batches learn more from the same tokens?"
    ),
    hypothesis=(
        "Learning, overfitting, diverging and standing still leave curves that simple rules tell "
        "apart, if a loss on held-out examples is among them. At equal tokens small batches win "
        "where the learning rate is low, because Adam's steps have a length of their own; where "
        "it is high they win nothing. Gradient noise grows while the loss falls."
    ),
    method=(
        "Four runs are made to have a shape: each example once at a fitting rate; 32 examples "
        "again and again; a rate far too high; a rate far too low. Detectors with thresholds in "
        "nats per token read the token-weighted, debiased moving average of the training loss and "
        "the loss on fixed held-out examples; each may fire on its own run only. Batches of 4, 8 "
        "and 16 make 40, 20 and 10 steps of the same 160 examples, at two rates and with three "
        "seeds, which draw adapter and order; differences are paired by seed (t test, 2 degrees "
        "of freedom, t(0.975) = 4.30) and by example. The simple noise scale comes from gradients "
        "of single held-out examples with respect to the adapters; held out, because the gradient "
        "on an example that was trained on is no sample of the next batch. The loss is followed "
        "from half an update backwards to twice the update, base + t·ΔW with t from -0.5 to 2. "
        "Standard errors over examples count examples, not tokens. One seed per shape: a shape is "
        "an illustration, its detectors' thresholds were chosen on such runs, and how often they "
        "would err on others is not measured."
    ),
    headline=(
        "runs_told_apart",
        "batch_effect_low",
        "batch_effect_high",
        "noise_growth",
        "overfit_gap",
    ),
    packages=("torch", "transformers", "peft"),
)


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    numbers = measurements(observations)
    return Outcome(
        numbers,
        tables=tables(observations),
        findings=findings(observations.plan, numbers),
        figures=figures(observations, numbers),
        environment=_environment(ctx, observations),
    )


def measure(ctx: Context) -> LossCurveObservations:
    """Do the whole experiment; write data and trials below the output folder."""
    from lab.instruments import sweep, trials

    plan = LossCurvePlan.from_config(ctx.config)
    planned_by_shape = planned_shapes(ctx.config)
    planned_by_setting = planned_grid(ctx.config)
    planned = [*planned_by_shape.values(), *planned_by_setting.values()]
    artifacts = ctx.out / "artifacts"
    with sweep.open_context(ctx) as (sweep_context, earlier_artifacts):
        # 1. The base and all trials.
        base = trials.base(sweep_context, artifacts, earlier=earlier_artifacts)
        results = trials.run(
            planned,
            sweep_context,
            artifacts,
            workers=ctx.config["workers"],
            earlier=earlier_artifacts,
            progress=ctx.progress,
        )
        shapes = {shape: results[trial] for shape, trial in planned_by_shape.items()}
        grid = {setting: results[trial] for setting, trial in planned_by_setting.items()}

        # 2. What needs trained adapters.
        steps = sum(trial.training.steps for trial in planned)
        ctx.progress(steps, steps, "gradients of single examples, losses along updates")
        follow_up = _follow_up(ctx, plan, sweep_context, shapes, _middle_trial(plan, grid))
        sweep_settings = sweep_context.description()
    return LossCurveObservations(
        plan=plan,
        base=base,
        shapes=shapes,
        grid=grid,
        repeated_base=follow_up["repeated_base"],
        losses_along_update={run: follow_up[f"update {run}"] for run in RUNS_ALONG_UPDATE},
        gradient_products={point: follow_up[f"gradients {point}"] for point in POINTS},
        sweep_settings=sweep_settings,
    )


# Planned trials


def planned_shapes(config: Config) -> dict[str, Trial]:
    """Return the four runs by name, as the config describes them; all start from seed 0."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    lora = LoraSettings(**config["lora"])
    planned = {}
    for shape in SHAPES:
        entry = config["shapes"][shape]
        planned[shape] = Trial(
            seed=0,
            training=Settings(**entry["training"]),
            lora=lora,
            examples=entry["examples"],
            curve_every=entry["curve_every"],
        )
    return planned


def planned_grid(config: Config) -> dict[tuple[str, int, int], Trial]:
    """Return the comparison of batch sizes at equal tokens, by (rate's name, batch size, seed).

    A tenth of the steps is warm-up.
    """
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    lora = LoraSettings(**config["lora"])
    examples = config["examples"]
    planned = {}
    for rate in RATES:
        for size in config["batches"]:
            steps = examples // size
            training = Settings(
                steps=steps,
                batch_size=size,
                learning_rate=config["rates"][rate],
                warmup_steps=max(1, steps // 10),
                schedule=config["schedule"],
            )
            for seed in config["seeds"]:
                planned[rate, size, seed] = Trial(seed, training, lora, examples=examples)
    return planned


def _middle_trial(
    plan: LossCurvePlan, grid: Mapping[tuple[str, int, int], TrialResult]
) -> TrialResult:
    """Return the trial of the low rate, the middle batch size and the first seed."""
    middle_size = plan.batch_sizes[len(plan.batch_sizes) // 2]
    return grid["low", middle_size, plan.seeds[0]]


# What needs trained adapters


def _follow_up(
    ctx: Context,
    plan: LossCurvePlan,
    sweep_context: SweepContext,
    shapes: Mapping[str, TrialResult],
    low: TrialResult,
) -> dict[str, Any]:
    """Return losses along updates, gradients' inner products and the base on repeated examples.

    `workers` of these tasks run at a time; each loads its own model.
    """
    from lab.instruments import aside

    tasks: dict[str, tuple[Any, ...]] = {}
    for run in RUNS_ALONG_UPDATE:
        folder = shapes[run].folder
        tasks[f"update {run}"] = (_loss_along_update, sweep_context, folder, plan.alphas)

    # "start" is where the healthy run starts: its trial without its stored adapter
    healthy = shapes["healthy"].trial
    adapters = {"start": None, "low": low.folder, "healthy": shapes["healthy"].folder}
    count = ctx.config["noise"]["examples"]
    for point in POINTS:
        task = (_gradient_products, sweep_context, healthy, adapters[point], count)
        tasks[f"gradients {point}"] = task

    tasks["repeated_base"] = (_repeated_base, sweep_context, shapes["overfitting"].trial)
    return aside.run(tasks, workers=ctx.config["workers"], threads=sweep_context.threads)


def _loss_along_update(
    sweep_context: SweepContext, folder: Path, alphas: tuple[float, ...]
) -> np.ndarray:
    """Return the token losses of the curve's examples along a trial's update: [len(alphas), N]."""
    from lab.instruments import landscape, trials

    stage = trials.Stage(sweep_context)
    model = stage.adapted(trials.read(folder).trial, folder)
    examples = [example.encoded for example in stage.evaluation[: sweep_context.curve]]
    return landscape.loss_along_update(model, examples, alphas)


def _gradient_products(
    sweep_context: SweepContext, trial: Trial, folder: Path | None, count: int
) -> np.ndarray:
    """Return the inner products [count, count] of the first held-out examples' gradients.

    They are taken at the trial stored in `folder`; without a folder, where `trial` starts.
    """
    from lab.instruments import gradient_noise, trials

    stage = trials.Stage(sweep_context)
    if folder is not None:
        trial = trials.read(folder).trial
    model = stage.adapted(trial, folder)
    examples = [example.encoded for example in stage.evaluation[:count]]
    return gradient_noise.inner_products(model, examples)


def _repeated_base(sweep_context: SweepContext, trial: Trial) -> Evaluation:
    """Return the base's evaluation on the examples that a trial repeats, in their order."""
    from lab.instruments import evaluation, trials

    stage = trials.Stage(sweep_context)
    examples = [example.encoded for example in stage.examples(trial)]
    scores: Evaluation = evaluation.evaluate(stage.loaded.model, examples)
    return scores


# Storage


def store(folder: Path, observations: LossCurveObservations) -> None:
    """Write what the trials' own files do not hold into `folder`."""
    names = {shape: result.trial.name for shape, result in observations.shapes.items()}
    (folder / "shapes.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    repeated_base = {
        "losses": observations.repeated_base.losses,
        "example_ids": observations.repeated_base.example_ids,
    }
    save_arrays(folder / "repeated_base.safetensors", repeated_base)
    alphas = np.array(observations.plan.alphas)
    save_arrays(folder / "line.safetensors", {"alphas": alphas, **observations.losses_along_update})
    save_arrays(folder / "gradient_products.safetensors", observations.gradient_products)


def _environment(ctx: Context, observations: LossCurveObservations) -> dict[str, Any]:
    """Return what it takes to repeat this run beyond what every run records."""
    folder = ctx.out / "artifacts"
    return {
        "model": ctx.config["model"],
        "model_sha256": observations.sweep_settings["model_sha256"],
        "data": {name: digest_of(folder / f"{name}.jsonl") for name in ("train", "evaluation")},
        "device": ctx.config["device"],
        "dtype": ctx.config["dtype"],
    }


if __name__ == "__main__":
    main(EXPERIMENT, run)
