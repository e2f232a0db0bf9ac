"""Induction heads: the step at which a small transformer learns to copy.

run(ctx)
    measure(ctx)
        training.train     conditions × seeds (lab/induction_heads/training.py)
        training.ablate    the trained two-layer models with heads zeroed
    store                  arrays under artifacts/
    measurements, tables, findings, figures    made from the observations
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lab.contract import Context, Experiment, Outcome, main
from lab.induction_heads.figures import figures
from lab.induction_heads.measured import CONDITIONS, InductionObservations, InductionPlan
from lab.induction_heads.numbers import measurements
from lab.induction_heads.report import findings
from lab.induction_heads.tables import tables
from lab.instruments.arrays import save_arrays

EXPERIMENT = Experiment(
    title="An ability appears",
    question=(
        "When does a small transformer learn to copy from its context, and can the step be seen in "
        "its loss and in its attention at once?"
    ),
    hypothesis=(
        "Copying is not learnt gradually: the loss on second copies first rests near what can be "
        "had without copying, then falls within a small part of the training. In the same steps "
        "a head of the second layer comes to attend to the token after the earlier occurrence, "
        "which needs a head of the first layer that attends one token back. A model with one layer "
        "cannot do it, and no model learns it from data in which nothing repeats."
    ),
    method=(
        "Transformers of attention layers only are trained from scratch on random tokens that "
        "repeat with a period drawn anew for each sequence, so that no fixed distance is right. "
        "Two controls differ in one thing each: the same model on data without repeats, and a "
        "model of one layer; three seeds each, which draw weights and data. Every few steps all "
        "are evaluated on the same sequences: loss on first and second copies, and of each head "
        "the attention on the token to copy (induction score, Olsson et al. 2022) and on the "
        "previous token. Copying counts as learnt at the first evaluated step from which the loss "
        "on second copies stays below half of ln V, a head as found at the first from which its "
        "score stays at 0.3 or above. In the trained models single heads and groups of heads are "
        "zeroed: the induction heads (at least half of the last layer's best score), the "
        "previous-token heads (the same in the layer before), and all others as a control."
    ),
    headline=(
        "learnt_step",
        "induction_step",
        "seeds_learnt",
        "second_copy_loss",
        "second_copy_loss_one_layer",
        "second_copy_loss_no_repeats",
        "ablation_ratio",
    ),
    packages=("torch",),
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
    )


def measure(ctx: Context) -> InductionObservations:
    """Train all models, and zero heads of the two-layer ones."""
    from lab.induction_heads import training
    from lab.instruments import aside

    plan = InductionPlan.from_config(ctx.config)
    settings = [(condition, seed) for condition in CONDITIONS for seed in plan.seeds]
    threads = ctx.config["threads"]

    # 1. Trainings.
    ctx.progress(0, len(settings), f"{len(settings)} trainings of {plan.steps} steps")
    start = time.perf_counter()
    tasks = {f"{where} {seed}": (training.train, plan, where, seed) for where, seed in settings}
    trained = aside.run(tasks, workers=ctx.config["workers"], threads=threads)
    seconds = time.perf_counter() - start
    runs = dict(zip(settings, trained.values(), strict=True))
    ctx.progress(len(settings), len(settings), "heads zeroed")

    # 2. Ablations: short, so in this process.
    ablated = aside.run(
        {str(seed): (training.ablate, plan, runs["repeats", seed]) for seed in plan.seeds},
        workers=1,
        threads=threads,
    )
    held_out = training.evaluation_set(plan)
    return InductionObservations(
        plan=plan,
        runs=runs,
        ablations=dict(zip(plan.seeds, ablated.values(), strict=True)),
        ids=held_out.ids.numpy(),
        periods=held_out.periods.numpy(),
        film=held_out.film.numpy(),
        seconds=seconds,
    )


def store(folder: Path, observations: InductionObservations) -> None:
    """Write what the numbers come from into `folder`, one folder a run."""
    # 1. What every run was evaluated on, and how long it took.
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = {
        "ids": observations.ids,
        "periods": observations.periods,
        "film": observations.film,
    }
    save_arrays(folder / "evaluation.safetensors", evaluation)
    seconds: dict[str, Any] = {"all": observations.seconds, "runs": {}}

    # 2. The runs.
    for run_observed in observations.runs.values():
        place = folder / "runs" / run_observed.name
        place.mkdir(parents=True)
        curve = {
            "steps": np.array(observations.plan.steps_evaluated),
            "first": run_observed.first,
            "second": run_observed.second,
            "accuracy": run_observed.accuracy,
            "induction": run_observed.induction,
            "previous": run_observed.previous,
        }
        save_arrays(place / "curve.safetensors", curve)
        if run_observed.condition == "repeats":  # films show no other run
            save_arrays(place / "patterns.safetensors", {"patterns": run_observed.patterns})
        save_arrays(place / "weights.safetensors", run_observed.weights)
        seconds["runs"][run_observed.name] = run_observed.seconds

    # 3. The ablations, beside the runs that they belong to.
    for seed, ablation in observations.ablations.items():
        place = folder / "runs" / observations.runs["repeats", seed].name
        losses = {"whole": ablation.whole, "single": ablation.single, **ablation.groups}
        save_arrays(place / "ablation.safetensors", losses)
    (folder / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(EXPERIMENT, run)
