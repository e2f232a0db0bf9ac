"""Catastrophic forgetting: what adapters that learnt docstrings no longer do as well as their base.

run(ctx)
    measure(ctx)
        adapters    those of the features before, taken over; in a run on its own trained here
        suites      written as they are used: four times a hundred items
        text        sampled from the base
        score       base and adapters, each on all items and all texts, side by side
    report.…        arrays under artifacts/, then numbers, tables, figures and sentences from them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lab.contract import Context, Result, main

if TYPE_CHECKING:
    from lab.forgetting.scoring import ModelScores, Job
    from lab.instruments.chat import Encoded
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.multiple_choice import Item, Scores
    from lab.instruments.sweep import SweepContext
    from lab.instruments.trials import TrialResult, Trial

QUESTION = (
    "What does a model forget while it learns to describe functions, and what decides how much?"
)
HYPOTHESIS = (
    "Forgetting rises with the learning rate and with the norm of the update: at 1e-5 nothing is "
    "lost, at 5e-3 the margins of arithmetic, reasoning, code and knowledge shrink, and leading "
    "singular vectors appear that the base does not have. An accuracy of 400 items is too coarse "
    "to see what 20 steps at 1e-3 do; margins and the divergence on the base's own text see it."
)
METHOD = (
    "Eight adapters of one seed, trained by the features before (signature → docstring line), are "
    "compared with their base, item by item. Four suites of 100 multiple-choice items, written for "
    "this lab, are scored by log-likelihood: the margin of an item is that of the right choice "
    "minus that of the best wrong one, both per byte; forgetting is the margin that was lost. acc "
    "and acc_norm are those of lm-evaluation-harness. An adapter's mean margin is tested by a "
    "paired t test over items (adjusted by Holm for the number of adapters), its accuracy by "
    "McNemar's exact test. KL(base‖adapter) is computed over the whole vocabulary at every token "
    "of text sampled from the base. Learning is the loss that the adapter took off the held-out "
    "functions. Rank correlations are over the adapters; their standard errors are bootstrapped "
    "over items or texts and say nothing about other seeds. Intruders are leading left singular "
    "vectors of a matrix that resemble none of the base's, counted in nine matrices. The base "
    "compared with itself must give 0 everywhere."
)
EXPERIMENT = __spec__.name if __name__ == "__main__" and __spec__ else __name__
EARLIER = ("FEAT-005", "FEAT-006", "FEAT-007")  # features that trained the adapters
BASE = "base"


@dataclass(frozen=True)
class ForgettingObservations:
    """All that a run measured.

    models: name → found, the base first; runs: adapter → its training; matrices: names.
    """

    items: tuple[Item, ...]
    texts: list[Encoded]
    models: Mapping[str, ModelScores]
    runs: Mapping[str, TrialResult]
    base_evaluation: Evaluation
    matrices: tuple[str, ...]
    roles: Mapping[str, str]
    threshold: float

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Margin, acc and acc_norm of every item, by model."""
        from lab.instruments.multiple_choice import score

        return {
            name: score(self.items, found.log_likelihoods) for name, found in self.models.items()
        }


def run(ctx: Context) -> None:
    """Measure, store the arrays, and show what they say."""
    from lab import present
    from lab.forgetting import figures, report, tables

    observations, sweep_context = measure(ctx)
    report.store(ctx, observations)
    numbers = report.measurements(observations)
    result = Result(
        EXPERIMENT,
        QUESTION,
        HYPOTHESIS,
        METHOD,
        numbers,
        tables=tables.tables(observations),
        findings=report.findings(observations, numbers),
        environment=report.facts(ctx, observations, sweep_context),
    )
    present.write(ctx.out, result, figures.figures(observations, numbers))


def measure(ctx: Context) -> tuple[ForgettingObservations, Mapping[str, object]]:
    """Do the whole experiment; give what it found, and what its runs stood on."""
    from lab.forgetting import scoring
    from lab.instruments import aside, sweep, trials

    artifacts = ctx.out / "artifacts"
    artifacts.mkdir(exist_ok=True)
    with sweep.open_context(ctx, EARLIER) as (sweep_context, known):
        wanted = plan(ctx)
        base = trials.base(sweep_context, artifacts, known=known)
        ran = trials.run(
            list(wanted.values()),
            sweep_context,
            artifacts,
            workers=ctx.config["workers"],
            known=known,
        )
        runs = {name: ran[trial] for name, trial in wanted.items()}
        job, processes = (
            _job(ctx, sweep_context),
            {"workers": ctx.config["workers"], "threads": sweep_context.threads},
        )
        ctx.progress(0, len(runs) + 1, "the base writes")
        # a process of its own, so that this one never holds a model
        texts = aside.run({"text": (scoring.write, job)}, **processes)["text"]
        ctx.progress(0, len(runs) + 1, "scoring")
        folders = {BASE: None, **{name: run.folder for name, run in runs.items()}}
        tasks = {name: (scoring.score, job, folder, texts) for name, folder in folders.items()}
        models = aside.run(tasks, **processes)
        ctx.progress(len(models), len(models), "scored")
        description = sweep_context.description()
    _freeze(ctx, job, texts)
    threshold = ctx.config["intruders"]["threshold"]
    observations = ForgettingObservations(
        job.items, texts, models, runs, base, job.matrices, dict(ctx.config["roles"]), threshold
    )
    return observations, description


def plan(ctx: Context) -> dict[str, Trial]:
    """The adapters as the trials that made them, by their names in the config."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    made = {}
    for name, settings in ctx.config["adapters"].items():
        lora = {key: value for key, value in settings.items() if key != "learning_rate"}
        training = Settings(**ctx.config["training"], learning_rate=settings["learning_rate"])
        made[name] = Trial(ctx.seed, training, LoraSettings(**lora), ctx.config["examples"])
    return made


def _job(ctx: Context, sweep_context: SweepContext) -> Job:
    from transformers import AutoConfig

    from lab.forgetting import suites
    from lab.forgetting.scoring import Job
    from lab.instruments.models import architecture

    text, chosen = ctx.config["text"], ctx.config["intruders"]
    layers = architecture(AutoConfig.from_pretrained(sweep_context.model)).layers
    return Job(
        model=sweep_context.model,
        dtype=sweep_context.dtype,
        device=sweep_context.device,
        items=tuple(
            item for name in suites.SUITES for item in suites.build(name, ctx.config["items"])
        ),
        texts=text["texts"],
        tokens=text["tokens"],
        seed=ctx.seed,
        matrices=tuple(
            f"{layers}.{block}.{linear}"
            for block in chosen["blocks"]
            for linear in chosen["linears"]
        ),
        directions=chosen["directions"],
    )


def _freeze(ctx: Context, job: Job, texts: list[Encoded]) -> None:
    """Write items and texts as they were used."""
    place = ctx.out / "artifacts/suites"
    place.mkdir()
    by_suite: dict[str, list[Item]] = {}
    for item in job.items:
        by_suite.setdefault(item.suite, []).append(item)
    for suite, items in by_suite.items():
        lines = (json.dumps(asdict(item)) + "\n" for item in items)
        (place / f"{suite}.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = (json.dumps({"ids": text.ids, "drawn": text.supervised}) + "\n" for text in texts)
    (ctx.out / "artifacts/text.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(run)
