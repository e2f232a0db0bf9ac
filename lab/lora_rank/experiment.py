"""LoRA rank: what it changes by itself, how many directions an update needs, why few are enough.

run(ctx)
    measure(ctx)
        trials.run            ranks × seeds with alpha fixed; the largest rank also with alpha = 2r
                              and with rsLoRA
        first_step.study      what the first step owes to the scale alone, on the model's real
                              first gradients
        directions.study      spectra of the updates; what the smallest and the largest rank share
        full_contrast.study   one full fine-tuning, evaluated whole and cut down to few directions
    report.…                  arrays under artifacts/, then numbers, figures and sentences from them
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.contract import Config, Context, Result, main

if TYPE_CHECKING:
    from pathlib import Path

    from lab.instruments.adapters import LoraSettings
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import SweepContext, TrialResult, Trial
    from lab.lora_rank.directions import UpdateSpectra
    from lab.lora_rank.first_step import FirstStep
    from lab.lora_rank.full_contrast import Full

QUESTION = "What does the rank of a LoRA adapter decide, and why is a low one enough?"
HYPOTHESIS = (
    "On so few examples the rank decides nothing: with alpha fixed, ranks 8 to 64 end within 0.1 "
    "nats of each other. Where a larger rank seems to matter, the scale was changed with it: alpha "
    "= 2r and rsLoRA take larger steps at the same learning rate. A few directions hold most of a "
    "LoRA update; a full fine-tuning's update is spread over hundreds, and yet its best eight "
    "directions per layer do most of what it does."
)
METHOD = (
    "Ranks 8, 16, 32 and 64 are trained on the same examples with the same alpha, rate and seeds, "
    "three each; the largest also with alpha = 2r and as rsLoRA. Trials that an earlier feature "
    "has run are taken over. Losses are means over the held-out tokens, differences are paired by "
    "seed, and equivalence is tested, not concluded from a missing difference: two one-sided t "
    "tests (TOST) on each pair of ranks, the largest p counts. That the first step grows as scale "
    "times rank follows from the formula for any gradient; it is called a derivation checked, and "
    "is checked on the first gradients of each seed with a real AdamW step. Updates are decomposed "
    "from their factors; subspaces of two ranks are compared on the left side, on the right side "
    "and in A with its random start removed, each against random directions. One full fine-tuning "
    "of the linear layers sees the examples of seed 0 in the same steps, at a tenth of the rate; "
    "its update is evaluated as stored (bfloat16), cut to its strongest directions, and, as "
    "control, cut to random ones. It is one run, its rate was not searched for, and 'full' leaves "
    "out embedding and norms."
)
EXPERIMENT = __spec__.name if __name__ == "__main__" and __spec__ else __name__


@dataclass(frozen=True)
class LoraRankObservations:
    """All that a run measured.

    settings: name (r8 … r64, alpha_2r, rslora) -> its trials, one per seed in order.
    """

    sweep_settings: Mapping[str, object]
    base: Evaluation
    settings: Mapping[str, Sequence[TrialResult]]
    first: FirstStep
    found: UpdateSpectra
    full: Full


def run(ctx: Context) -> None:
    """Measure, store the arrays, and show what they say."""
    from lab import present
    from lab.lora_rank import figures, tables
    from lab.lora_rank import numbers as report
    from lab.lora_rank import report as sentences

    observations = measure(ctx)
    report.store(ctx, observations)
    numbers = report.measurements(ctx, observations)
    result = Result(
        EXPERIMENT,
        QUESTION,
        HYPOTHESIS,
        METHOD,
        numbers,
        tables=tables.tables(observations),
        findings=sentences.findings(numbers, ctx.config["equivalence_margin"]),
        environment=report.facts(ctx, observations),
    )
    present.write(ctx.out, result, figures.figures(observations, numbers))


def measure(ctx: Context) -> LoraRankObservations:
    """Do the whole experiment; write trials and the full update below the output folder."""
    from lab.instruments import sweep, trials

    plan, artifacts = planned(ctx.config), ctx.out / "artifacts"
    every = [trial for row in plan.values() for trial in row]
    with sweep.open_context(ctx, ("FEAT-005", "FEAT-006")) as (sweep_context, known):
        base = trials.base(sweep_context, artifacts, known=known)
        ran = trials.run(
            every,
            sweep_context,
            artifacts,
            workers=ctx.config["workers"],
            known=known,
            tell=_telling(ctx, len(every)),
        )
        ctx.progress(len(every), len(every) + 1, "full fine-tuning, first steps, directions")
        studies = _studies(
            ctx, sweep_context, plan, {trial.name: ran[trial].folder for trial in every}
        )
        facts = sweep_context.description()
    ctx.progress(len(every) + 1, len(every) + 1, "done")
    settings = {name: [ran[trial] for trial in row] for name, row in plan.items()}
    return LoraRankObservations(
        facts, base, settings, studies["first"], studies["found"], studies["full"]
    )


def _telling(ctx: Context, trials: int) -> Callable[[int, int, str], None]:
    """Progress in trials, of which those taken over count as done.

    The studies after them count as one more.
    """

    def tell(done: int, total: int, note: str) -> None:
        left = round((total - done) / ctx.config["training"]["steps"])
        ctx.progress(trials - left, trials + 1, note)

    return tell


def planned(config: Config) -> dict[str, list[Trial]]:
    """Setting -> its trials, one per seed.

    The ranks with alpha fixed, then the largest rank with other scales.
    """
    from lab.instruments.adapters import LoraSettings

    alpha, most = config["lora_alpha"], config["ranks"][-1]
    settings = {f"r{r}": LoraSettings(r, alpha) for r in config["ranks"]}
    settings["alpha_2r"] = LoraSettings(most, 2 * most)
    settings["rslora"] = LoraSettings(most, alpha, use_rslora=True)
    return {
        name: [_trial(config, lora, seed) for seed in config["seeds"]]
        for name, lora in settings.items()
    }


def _trial(config: Config, lora: LoraSettings, seed: int) -> Trial:
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    return Trial(seed, Settings(**config["training"]), lora, examples=config["examples"])


def _studies(
    ctx: Context,
    sweep_context: SweepContext,
    plan: Mapping[str, list[Trial]],
    folders: Mapping[str, Path],
) -> dict[str, FirstStep | UpdateSpectra | Full]:
    """What needs the model besides the trials, `workers` at a time; the longest first."""
    from lab.instruments import aside
    from lab.lora_rank import directions, first_step, full_contrast

    ranks = [plan[f"r{r}"] for r in ctx.config["ranks"]]
    full = ctx.config["full"]
    training = dataclasses.replace(ranks[0][0].training, learning_rate=full["learning_rate"])
    like = dataclasses.replace(ranks[0][0], training=training)
    by_seed = [list(row) for row in zip(*ranks, strict=True)]
    tasks = {
        "full": (
            full_contrast.study,
            sweep_context,
            like,
            full["cuts"],
            full["control"],
            ctx.out / "artifacts",
        ),
        "found": (directions.study, sweep_context, folders, [(row[0], row[-1]) for row in by_seed]),
        "first": (first_step.study, sweep_context, by_seed),
    }
    return aside.run(tasks, workers=ctx.config["workers"], threads=sweep_context.threads)


if __name__ == "__main__":
    main(run)
