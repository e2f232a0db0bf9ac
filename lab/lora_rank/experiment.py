"""LoRA rank: what it changes by itself, how many directions an update needs, why few are enough.

run(ctx)
    measure(ctx)
        plan                  ranks × seeds with alpha fixed; the largest rank also with alpha = 2r
                              and with rsLoRA
        trials.run            trains and evaluates them, or reuses those of earlier features
        full_contrast.study   one full fine-tuning, evaluated whole and cut to few directions
        directions.study      spectra of the updates; what the smallest and the largest rank share
        first_step.study      how the first step depends on the scale alone, on the model's real
                              first gradients
    store                     arrays below artifacts/
    numbers.measurements      the numbers; tables, findings and figures are made from them
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Config, Context, Experiment, Outcome, main
from lab.instruments.arrays import save_arrays
from lab.lora_rank import figures, numbers, report, tables
from lab.lora_rank.measured import LoraRankObservations

if TYPE_CHECKING:
    from lab.instruments.trials import SweepContext, Trial

EXPERIMENT = Experiment(
    title="LoRA rank comparison",
    question="What does the rank of a LoRA adapter decide, and why is a low one enough?",
    hypothesis=(
        "On so few examples the rank decides nothing: with alpha fixed, ranks 8 to 64 end within "
        "0.1 nats of each other. Where a larger rank seems to matter, the scale was changed with "
        "it: alpha = 2r and rsLoRA take larger steps at the same learning rate. A few directions "
        "hold most of a LoRA update; a full fine-tuning's update is spread over hundreds, and yet "
        "its best eight directions per layer do most of what it does."
    ),
    method=(
        "Ranks 8, 16, 32 and 64 are trained on the same examples with the same alpha, rate and "
        "seeds, three each; the largest also with alpha = 2r and as rsLoRA. Trials that an earlier "
        "feature has run are reused. Losses are means over the held-out tokens, differences "
        "are paired by seed, and equivalence is tested, not concluded from a missing difference: "
        "two one-sided t tests (TOST) on each pair of ranks, the largest p counts. That the first "
        "step grows as scale times rank follows from the formula for any gradient; it is called a "
        "derivation checked, and is checked on the first gradients of each seed with a real AdamW "
        "step. Updates are decomposed from their factors; subspaces of two ranks are compared on "
        "the left side, on the right side and in A with its random start removed, each against "
        "random directions. One full fine-tuning of the linear layers sees the examples of seed 0 "
        "in the same steps, at a tenth of the rate; its update is evaluated as stored (bfloat16), "
        "cut to its strongest directions, and, as control, cut to random ones. It is one run, its "
        "rate was not searched for, and 'full' leaves out embedding and norms."
    ),
    headline=(
        "rank_gap",
        "rank_equivalence_p",
        "alpha_2r_gap",
        "rslora_gap",
        "full_kept_rank_8",
        "full_kept_random_8",
    ),
    packages=("torch", "transformers", "peft"),
)
EARLIER = ("FEAT-005", "FEAT-006")  # features whose trials are reused


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    margin = ctx.config["equivalence_margin"]
    measurements = numbers.measurements(observations, margin)
    return Outcome(
        measurements,
        tables=tables.tables(observations),
        findings=report.findings(measurements, margin),
        figures=figures.figures(observations, measurements),
        environment=describe(ctx, observations),
    )


def plan(config: Config) -> dict[str, list[Trial]]:
    """Return setting -> its trials, one per seed.

    The ranks with alpha fixed come first, then the largest rank with other scales.
    """
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    alpha = config["lora_alpha"]
    largest = config["ranks"][-1]
    adapters = {f"r{r}": LoraSettings(r, alpha) for r in config["ranks"]}
    adapters["alpha_2r"] = LoraSettings(largest, 2 * largest)
    adapters["rslora"] = LoraSettings(largest, alpha, use_rslora=True)

    training = Settings(**config["training"])
    return {
        name: [Trial(seed, training, lora, config["examples"]) for seed in config["seeds"]]
        for name, lora in adapters.items()
    }


def measure(ctx: Context) -> LoraRankObservations:
    """Run the trials and the three studies; write trials and the full update below `ctx.out`."""
    from lab.instruments import sweep, trials

    planned_trials = plan(ctx.config)
    artifacts = ctx.out / "artifacts"
    every_trial = list(itertools.chain.from_iterable(planned_trials.values()))
    total = len(every_trial) + 1  # the studies count as one more
    with sweep.open_context(ctx, EARLIER) as (sweep_context, earlier):
        # 1. The model without an adapter, then every trial.
        base = trials.base(sweep_context, artifacts, earlier=earlier)
        results = trials.run(
            every_trial,
            sweep_context,
            artifacts,
            workers=ctx.config["workers"],
            earlier=earlier,
            progress=_progress_in_trials(ctx, len(every_trial)),
        )

        # 2. What needs the model besides the trials.
        ctx.progress(total - 1, total, "full fine-tuning, first steps, directions")
        folders = {trial.name: results[trial].folder for trial in every_trial}
        studies = _run_studies(ctx, sweep_context, planned_trials, folders)
        sweep_settings = sweep_context.description()
    ctx.progress(total, total, "done")

    # 3. By setting, in the order of the plan.
    settings = {}
    adapter_parameters = {}
    for name, row in planned_trials.items():
        settings[name] = [results[trial] for trial in row]
        adapter_parameters[name] = _count_parameters(settings[name][0].folder)
    return LoraRankObservations(
        sweep_settings=sweep_settings,
        base=base,
        settings=settings,
        adapter_parameters=adapter_parameters,
        first_step=studies["first_step"],
        spectra=studies["spectra"],
        full_tuning=studies["full_tuning"],
    )


def _progress_in_trials(ctx: Context, trial_count: int) -> Callable[[int, int, str], None]:
    """Return what turns progress in optimizer steps into progress in trials.

    A trial that was reused has no steps left and counts as done.
    """

    def report_steps(done: int, total: int, note: str) -> None:
        trials_left = round((total - done) / ctx.config["training"]["steps"])
        ctx.progress(trial_count - trials_left, trial_count + 1, note)

    return report_steps


def _run_studies(
    ctx: Context,
    sweep_context: SweepContext,
    planned_trials: Mapping[str, list[Trial]],
    folders: Mapping[str, Path],
) -> dict[str, Any]:
    """Run the three studies, `workers` at a time, the longest first; return name -> its result."""
    from lab.instruments import aside
    from lab.lora_rank import directions, first_step, full_contrast

    # 1. The trials of the primary comparison: one row of ranks per seed.
    by_rank = [planned_trials[f"r{r}"] for r in ctx.config["ranks"]]
    by_seed = [list(row) for row in zip(*by_rank, strict=True)]

    # 2. The full fine-tuning has the steps of the first trial, at a rate of its own.
    full = ctx.config["full"]
    first_trial = by_rank[0][0]
    training = dataclasses.replace(first_trial.training, learning_rate=full["learning_rate"])
    full_trial = dataclasses.replace(first_trial, training=training)

    # 3. Name -> a function and its arguments.
    artifacts = ctx.out / "artifacts"
    smallest_and_largest = [(row[0], row[-1]) for row in by_seed]
    tasks: dict[str, aside.Task] = {
        "full_tuning": (
            full_contrast.study,
            sweep_context,
            full_trial,
            full["cuts"],
            full["control"],
            artifacts,
        ),
        "spectra": (directions.study, sweep_context, folders, smallest_and_largest),
        "first_step": (first_step.study, sweep_context, by_seed),
    }
    return aside.run(tasks, workers=ctx.config["workers"], threads=sweep_context.threads)


def _count_parameters(folder: Path) -> int:
    """Return the numbers in a stored adapter, counted in its tensors."""
    from safetensors.numpy import load_file

    from lab.instruments.adapters import WEIGHTS

    return sum(tensor.size for tensor in load_file(folder / WEIGHTS).values())


def store(artifacts: Path, observations: LoraRankObservations) -> None:
    """Write the arrays that neither the trials' own files nor the full update hold."""
    from lab.instruments.training import Step

    # 1. The updates, and what two ranks have in common.
    spectra = observations.spectra
    updates = {"weight_norms": spectra.weight_norms}
    for name, values in spectra.values.items():
        updates[f"{name}.values"] = values
        updates[f"{name}.inside_norms"] = spectra.inside_norms[name]
    save_arrays(artifacts / "updates.safetensors", updates)
    save_arrays(artifacts / "overlaps.safetensors", spectra.overlaps)

    # 2. The first steps.
    save_arrays(artifacts / "first_step.safetensors", vars(observations.first_step))

    # 3. The full fine-tuning: its steps and singular values, then the tokens of each evaluation.
    full = observations.full_tuning
    training = {"values": full.values}
    for field in dataclasses.fields(Step):
        steps = [getattr(step, field.name) for step in full.steps]
        training[field.name] = np.array(steps, dtype=np.float64)
    save_arrays(artifacts / "full" / "training.safetensors", training)
    tokens = {"example_ids": observations.base.example_ids}
    for name, evaluation in full.evaluations.items():
        for column in ("losses", "entropies", "hits"):
            tokens[f"{name}.{column}"] = getattr(evaluation, column)
    save_arrays(artifacts / "full" / "evaluation.safetensors", tokens)


def describe(ctx: Context, observations: LoraRankObservations) -> dict[str, Any]:
    """Return what it takes to repeat the run, beyond what `conduct` records of every run."""
    names = {}
    reused = []
    for setting, results in observations.settings.items():
        names[setting] = [result.trial.name for result in results]
        reused += [result.trial.name for result in results if result.reused]
    return {
        "model_sha256": observations.sweep_settings["model_sha256"],
        "device": ctx.config["device"],
        "dtype": ctx.config["dtype"],
        "sweep_context": dict(observations.sweep_settings),
        "trials": names,
        "taken_over": reused,
    }


if __name__ == "__main__":
    main(EXPERIMENT, run)
