"""Catastrophic forgetting: what adapters that learned docstrings do worse than their base.

run(ctx)
    measure(ctx)
        plan, trials.run    the adapters, reused from earlier features; a run on its own
                            trains them here
        scoring.write       text sampled from the base
        scoring.score       base and adapters, each on all items and all texts, in parallel
    store                   items, text and scores under artifacts/
    numbers.compare         each adapter against the base
    numbers.measurements    the numbers; tables, findings and figures are made from both
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.contract import Config, Context, Experiment, Outcome, main
from lab.forgetting import figures, numbers, report, tables
from lab.forgetting.measured import BASE, ForgettingObservations
from lab.instruments.arrays import save_arrays

if TYPE_CHECKING:
    from lab.forgetting.scoring import Job
    from lab.instruments.chat import Encoded
    from lab.instruments.multiple_choice import Item
    from lab.instruments.trials import SweepContext, Trial

EXPERIMENT = Experiment(
    title="Catastrophic forgetting",
    question=(
        "What does a model forget while it learns to describe functions, and what decides how much?"
    ),
    hypothesis=(
        "Forgetting rises with the learning rate and with the norm of the update: at 1e-5 nothing "
        "is lost, at 5e-3 the margins of arithmetic, reasoning, code and knowledge shrink, and "
        "leading singular vectors appear that the base does not have. An accuracy of 400 items is "
        "too coarse to see what 20 steps at 1e-3 do; margins and the divergence on the base's own "
        "text see it."
    ),
    method=(
        "Eight adapters of one seed, trained by the features before (signature → docstring line), "
        "are compared with their base, item by item. Four suites of 100 multiple-choice items, "
        "written for this lab, are scored by log-likelihood: the margin of an item is that of the "
        "right choice minus that of the best wrong one, both per byte; forgetting is the margin "
        "that was lost. acc and acc_norm are those of lm-evaluation-harness. An adapter's mean "
        "margin is tested by a paired t test over items (adjusted by Holm for the number of "
        "adapters), its accuracy by McNemar's exact test. KL(base‖adapter) is computed over the "
        "whole vocabulary at every token of text sampled from the base. Learning is the loss that "
        "the adapter took off the held-out functions. Rank correlations are over the adapters; "
        "their standard errors are bootstrapped over items or texts and say nothing about other "
        "seeds. Intruders are leading left singular vectors of a matrix that resemble none of the "
        "base's, counted in nine matrices. The base compared with itself must give 0 everywhere."
    ),
    headline=(
        "adapters_that_forgot",
        "forgetting_standard",
        "forgetting_high_rate",
        "spearman_rate",
        "spearman_norm",
        "kl_standard",
    ),
    packages=("torch", "transformers", "peft"),
)
EARLIER = ("FEAT-005", "FEAT-006", "FEAT-007")  # features that trained the adapters


def run(ctx: Context) -> Outcome:
    """Measure, store the arrays, and return numbers, tables, findings and figures."""
    observations = measure(ctx)
    store(ctx.out / "artifacts", observations)
    comparisons = numbers.compare(observations)
    measurements = numbers.measurements(observations, comparisons)
    return Outcome(
        measurements,
        tables=tables.tables(observations, comparisons),
        findings=report.findings(observations, comparisons, measurements),
        figures=figures.figures(observations, comparisons, measurements),
        environment=describe(ctx, observations),
    )


def measure(ctx: Context) -> ForgettingObservations:
    """Reuse or train the adapters, let the base write, and score all models."""
    from lab.forgetting import scoring
    from lab.instruments import aside, sweep, trials

    artifacts = ctx.out / "artifacts"
    artifacts.mkdir(exist_ok=True)
    workers = ctx.config["workers"]
    with sweep.open_context(ctx, EARLIER) as (sweep_context, earlier):
        # 1. The base's held-out losses, and the adapters.
        planned_trials = plan(ctx.config, ctx.seed)
        base_evaluation = trials.base(sweep_context, artifacts, earlier=earlier)
        results = trials.run(
            list(planned_trials.values()),
            sweep_context,
            artifacts,
            workers=workers,
            earlier=earlier,
        )
        runs = {name: results[trial] for name, trial in planned_trials.items()}

        # 2. The base writes, in a process of its own, so that this one never holds a model.
        threads = sweep_context.threads
        job = job_of(ctx, sweep_context)
        ctx.progress(0, len(runs) + 1, "the base writes")
        written = aside.run({"text": (scoring.write, job)}, workers=workers, threads=threads)
        texts = written["text"]

        # 3. Every model is scored.
        ctx.progress(0, len(runs) + 1, "scoring")
        tasks: dict[str, aside.Task] = {BASE: (scoring.score, job, None, texts)}
        for name, result in runs.items():
            tasks[name] = (scoring.score, job, result.folder, texts)
        models = aside.run(tasks, workers=workers, threads=threads)
        ctx.progress(len(models), len(models), "scored")
        sweep_settings = sweep_context.description()
    return ForgettingObservations(
        sweep_settings=sweep_settings,
        items=job.items,
        texts=texts,
        models=models,
        runs=runs,
        base_evaluation=base_evaluation,
        matrices=job.matrices,
        roles=dict(ctx.config["roles"]),
        threshold=ctx.config["intruders"]["threshold"],
    )


def plan(config: Config, seed: int) -> dict[str, Trial]:
    """Return adapter -> the trial that trains it, by the names in the config."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    planned_trials = {}
    for name, settings in config["adapters"].items():
        lora = {key: value for key, value in settings.items() if key != "learning_rate"}
        training = Settings(**config["training"], learning_rate=settings["learning_rate"])
        planned_trials[name] = Trial(seed, training, LoraSettings(**lora), config["examples"])
    return planned_trials


def job_of(ctx: Context, sweep_context: SweepContext) -> Job:
    """Return what all models are scored on."""
    from transformers import AutoConfig

    from lab.forgetting import suites
    from lab.forgetting.scoring import Job
    from lab.instruments.models import architecture

    # 1. The items of all suites, in order.
    items: list[Item] = []
    for name in suites.SUITES:
        items += suites.build(name, ctx.config["items"])

    # 2. The full names of the matrices to decompose.
    intruders = ctx.config["intruders"]
    layers = architecture(AutoConfig.from_pretrained(sweep_context.model)).layers
    matrices = []
    for block in intruders["blocks"]:
        matrices += [f"{layers}.{block}.{linear}" for linear in intruders["linears"]]
    return Job(
        model=sweep_context.model,
        dtype=sweep_context.dtype,
        device=sweep_context.device,
        items=tuple(items),
        texts=ctx.config["text"]["texts"],
        tokens=ctx.config["text"]["tokens"],
        seed=ctx.seed,
        matrices=tuple(matrices),
        directions=intruders["directions"],
    )


def store(artifacts: Path, observations: ForgettingObservations) -> None:
    """Write items, text, scores, and which trial each model is."""
    # 1. Items and texts, one JSON object per line.
    (artifacts / "suites").mkdir()
    for suite, indices in observations.suites.items():
        text = suite_text([observations.items[i] for i in indices])
        (artifacts / "suites" / f"{suite}.jsonl").write_text(text, encoding="utf-8")
    (artifacts / "text.jsonl").write_text(texts_text(observations.texts), encoding="utf-8")

    # 2. The scores as MODEL.FIELD.
    arrays = {}
    for name, model in observations.models.items():
        for field in fields(model):
            arrays[f"{name}.{field.name}"] = getattr(model, field.name)
    save_arrays(artifacts / "scores.safetensors", arrays)

    # 3. The adapters' settings, and the matrices.
    models = {}
    for name, result in observations.runs.items():
        models[name] = {"trial": result.folder.name, **asdict(result.trial.lora)}
    document = {"models": models, "matrices": list(observations.matrices)}
    (artifacts / "models.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def suite_text(items: Sequence[Item]) -> str:
    """Return the file of a suite: an item per line, as JSON."""
    return "".join(json.dumps(asdict(item)) + "\n" for item in items)


def texts_text(texts: Sequence[Encoded]) -> str:
    """Return the file of the sampled texts: one per line, as JSON."""
    rows = [{"ids": text.ids, "drawn": text.supervised} for text in texts]
    return "".join(json.dumps(row) + "\n" for row in rows)


def describe(ctx: Context, observations: ForgettingObservations) -> Mapping[str, Any]:
    """Return what it takes to repeat the run, beyond what `conduct` records of every run."""
    from lab.forgetting.suites import VERSION

    return {
        "model": ctx.config["model"],
        "sweep_context": dict(observations.sweep_settings),
        "taken_over": sum(result.reused for result in observations.runs.values()),
        "suites_version": VERSION,
    }


if __name__ == "__main__":
    main(EXPERIMENT, run)
