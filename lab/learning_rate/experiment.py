"""Learning rates: which wins, whether a formula knew it, whether it moves with rank, what breaks.

run(ctx)
    measure(ctx)
        plan        the settings to run, each with every seed: rates at two ranks, and a control
                    with shuffled answers
        trials.run  those that FEAT-005 has run are taken over, the others are run side by side
        formula     what tinker-cookbook's fit says for this width, before any loss is looked at
    report.measurements → tables, figures, sentences, all made from the stored trials
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Config, Context, ContractError, Result, main

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import TrialResult, Trial

QUESTION = (
    "Which learning rate lets LoRA learn most in 20 steps, could it have been known beforehand, "
    "does it move with the rank, and what happens above it?"
)
HYPOTHESIS = (
    "Against the logarithm of the rate the final held-out loss is U-shaped. A published formula, "
    "fitted on models from 1 B parameters on, puts the optimum at 1.3e-3, so 1e-3 wins among 1e-5, "
    "2e-4, 1e-3 and 5e-3: the first barely moves, the last is unstable and learns nevertheless. "
    "With alpha fixed the optimum is the same at rank 64. At least half of what is learnt at 1e-3 "
    "is the format of answers, which shuffled answers teach too."
)
METHOD = (
    "Runs of 20 steps of 8 examples (signature → first docstring line of Python's library) differ "
    "in the peak rate, in the rank with alpha fixed at 32, and in the seed, which draws the "
    "initial adapter and the order of the examples; so runs of one seed see the same batches. A "
    "control trains with the answers shuffled among the prompts. Every run is evaluated on the "
    "same 256 functions of other packages. Neighbouring rates, chosen before the run, are compared "
    "in pairs: by seed with a paired t test (2 degrees of freedom, t(0.975) = 4.30, not corrected "
    "for the number of comparisons), and by example with the mean over seeds of each token's loss, "
    "examples being the independent units. The optimum of a seed is the vertex of the parabola "
    "through its losses at the last three rates, in log10 of the rate. Instability is the largest "
    "climb of the training loss above its lowest value so far; as batches differ in difficulty, it "
    "is also taken of the loss minus that of the smallest rate's run on the same batch, which "
    "leaves in how much a batch can gain. The library's text was probably in the model's "
    "pretraining data: losses compare rates, they are no evidence of understanding."
)
EXPERIMENT = __spec__.name if __name__ == "__main__" and __spec__ else __name__
EARLIER = ("FEAT-005",)  # features whose data and trials are taken over


@dataclass(frozen=True)
class Setting:
    """What differs between runs, besides the seed.

    rate: the schedule's peak; ΔW = (alpha / rank)·B·A.
    """

    rank: int
    alpha: float
    rate: float
    shuffled: bool = False


@dataclass(frozen=True)
class Plan:
    """All settings by their part.

    first, second: one setting per rate, rates rising, at the first and second rank.
    """

    first: tuple[Setting, ...]
    second: tuple[Setting, ...]
    control: Setting
    seeds: tuple[int, ...]

    @property
    def true(self) -> tuple[Setting, ...]:
        """The settings that see true answers."""
        return self.first + self.second

    @property
    def reference(self) -> Setting:
        """The smallest rate: its loss per batch is hardly more than the batch's own difficulty."""
        return self.first[0]

    @property
    def compared(self) -> Setting:
        """The run that the control is compared with: the same but for the answers."""
        return next(s for s in self.first if s.rate == self.control.rate)

    @property
    def shared(self) -> tuple[Setting, ...]:
        """The first rank's settings at the second's rates: the optimum comes from these three."""
        rates = {s.rate for s in self.second}
        return tuple(s for s in self.first if s.rate in rates)


@dataclass(frozen=True)
class LearningRateObservations:
    """All that a run measured.

    runs: setting → its runs in the order of the seeds; formula: a rate, see optimum.py.
    """

    plan: Plan
    base: Evaluation
    runs: Mapping[Setting, tuple[TrialResult, ...]]
    formula: float | None
    hidden_size: int
    sweep_context: Mapping[str, Any]

    @property
    def base_loss(self) -> float:
        """Held-out loss of the base, nats per token."""
        return float(self.base.losses.mean(dtype="float64"))

    def losses(self, setting: Setting) -> list[float]:
        """Final held-out loss of each seed, nats per token."""
        return [float(run.evaluation.losses.mean(dtype="float64")) for run in self.runs[setting]]

    def training_losses(self, setting: Setting) -> np.ndarray:
        """Training loss [seeds, T], nats per token."""
        return np.array([[step.loss for step in run.steps] for run in self.runs[setting]])

    def same_batches(self, setting: Setting) -> np.ndarray:
        """Training loss [seeds, T] less that of the smallest rate.

        The smallest rate's run of the same seed saw the same batches.
        """
        return self.training_losses(setting) - self.training_losses(self.plan.reference)


def run(ctx: Context) -> None:
    """Measure, and show what the stored runs say."""
    from lab import present
    from lab.learning_rate import figures, tables
    from lab.learning_rate import numbers as report
    from lab.learning_rate import report as sentences

    observations = measure(ctx)
    spikes = report.Spikes(ctx.config["gradient_spike"], ctx.config["loss_spike"])
    numbers = report.measurements(observations, spikes)
    result = Result(
        EXPERIMENT,
        QUESTION,
        HYPOTHESIS,
        METHOD,
        numbers,
        tables=tables.tables(observations, spikes),
        findings=sentences.findings(observations, numbers),
        environment=report.facts(ctx, observations),
    )
    present.write(ctx.out, result, figures.figures(observations, numbers))


def plan(config: Config) -> Plan:
    """The settings that a config asks for.

    Raises:
        ContractError: rates that do not rise, a second rank without exactly three of the first
            one's rates, a control at a rate that is not swept, or a single seed.
    """
    rates, second, control = config["rates"], config["second"], config["training"]["learning_rate"]
    if sorted(set(rates)) != rates or sorted(set(second["rates"])) != second["rates"]:
        msg = f"rates {rates} and second.rates {second['rates']}; wanted each rising"
        raise ContractError(msg)
    if len(second["rates"]) != 3 or not set(second["rates"]) <= set(rates):
        msg = (
            f"second.rates {second['rates']}; wanted exactly three of rates {rates}, for a "
            "parabola at both ranks"
        )
        raise ContractError(msg)
    if control not in rates:
        msg = (
            f"training.learning_rate {control}; wanted one of rates {rates}, with which the "
            "control is compared"
        )
        raise ContractError(msg)
    if len(config["seeds"]) < 2:
        msg = (
            f"seeds {config['seeds']}; wanted at least two, or nothing tells a rate's "
            "effect from a seed's"
        )
        raise ContractError(msg)
    lora = config["lora"]
    return Plan(
        first=tuple(Setting(lora["r"], lora["lora_alpha"], rate) for rate in rates),
        second=tuple(Setting(second["r"], second["lora_alpha"], rate) for rate in second["rates"]),
        control=Setting(lora["r"], lora["lora_alpha"], control, shuffled=True),
        seeds=tuple(config["seeds"]),
    )


def measure(ctx: Context) -> LearningRateObservations:
    """Run what no earlier feature has run; write it below artifacts/trials/."""
    from lab.instruments import sweep, trials
    from lab.learning_rate.optimum import formula_rate

    chosen = plan(ctx.config)
    wanted = {
        s: [_trial(s, seed, ctx.config) for seed in chosen.seeds]
        for s in (*chosen.true, chosen.control)
    }
    with sweep.open_context(ctx, EARLIER) as (sweep_context, known):
        model = json.loads((sweep_context.model / "config.json").read_text("utf-8"))
        formula = formula_rate(model["model_type"], model["hidden_size"])
        ctx.progress(0, 1, "evaluating the base")
        artifacts = ctx.out / "artifacts"
        base = trials.base(sweep_context, artifacts, known=known)
        everything = [trial for of_seed in wanted.values() for trial in of_seed]
        workers = ctx.config["workers"]
        found = trials.run(
            everything, sweep_context, artifacts, workers=workers, known=known, tell=ctx.progress
        )
        described = sweep_context.description()
    runs = {
        setting: tuple(found[trial] for trial in of_seed) for setting, of_seed in wanted.items()
    }
    return LearningRateObservations(chosen, base, runs, formula, model["hidden_size"], described)


def _trial(setting: Setting, seed: int, config: Mapping[str, Any]) -> Trial:
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    return Trial(
        seed,
        Settings(**{**config["training"], "learning_rate": setting.rate}),
        LoraSettings(setting.rank, setting.alpha),
        examples=config["examples"],
        shuffled=setting.shuffled,
    )


if __name__ == "__main__":
    main(run)
