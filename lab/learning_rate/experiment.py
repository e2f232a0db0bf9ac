"""Learning rates: which one wins, whether a formula predicts it, what the rank and excess change.

run(ctx)
    measure(ctx)
        plan                the settings, each with every seed: rates at two ranks, and a control
                            with shuffled answers
        formula_rate        what tinker-cookbook's fit predicts for this width, before any loss is
                            known
        trials.run          trains, evaluates and stores them, or reuses those of FEAT-005
    numbers.measurements    the numbers; tables, findings and figures are made from them
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from lab.contract import Config, Context, ContractError, Experiment, Outcome, main
from lab.learning_rate import figures, numbers, report, tables
from lab.learning_rate.measured import LearningRateObservations, Plan, Setting, SpikeThresholds
from lab.learning_rate.optimum import formula_rate

if TYPE_CHECKING:
    from lab.instruments.trials import Trial

EXPERIMENT = Experiment(
    title="Learning-rate exploration",
    question=(
        "Which learning rate lets LoRA learn most in 20 steps, could it have been known "
        "beforehand, does it move with the rank, and what happens above it?"
    ),
    hypothesis=(
        "Against the logarithm of the rate the final held-out loss is U-shaped. A published "
        "formula, fitted on models from 1 B parameters on, puts the optimum at 1.3e-3, so 1e-3 "
        "wins among 1e-5, 2e-4, 1e-3 and 5e-3: the first barely moves, the last is unstable and "
        "learns nevertheless. With alpha fixed the optimum is the same at rank 64. At least half "
        "of what is learnt at 1e-3 is the format of answers, which shuffled answers teach too."
    ),
    method=(
        "Runs of 20 steps of 8 examples (signature → first docstring line of Python's library) "
        "differ in the peak rate, in the rank with alpha fixed at 32, and in the seed, which draws "
        "the initial adapter and the order of the examples; so runs of one seed see the same "
        "batches. A control trains with the answers shuffled among the prompts. Every run is "
        "evaluated on the same 256 functions of other packages. Neighbouring rates, chosen before "
        "the run, are compared in pairs: by seed with a paired t test (2 degrees of freedom, "
        "t(0.975) = 4.30, not corrected for the number of comparisons), and by example with the "
        "mean over seeds of each token's loss, examples being the independent units. The optimum "
        "of a seed is the vertex of the parabola through its losses at the last three rates, in "
        "log10 of the rate. Instability is the largest climb of the training loss above its lowest "
        "value so far; as batches differ in difficulty, it is also taken of the loss minus that of "
        "the smallest rate's run on the same batch, which leaves in how much a batch can gain. The "
        "library's text was probably in the model's pretraining data: losses compare rates, they "
        "are no evidence of understanding."
    ),
    headline=(
        "best_rate",
        "best_rate_lead",
        "formula_rate",
        "optimum_shift",
        "loss_spikes",
    ),
    packages=("torch", "transformers", "peft"),
)
EARLIER = ("FEAT-005",)  # features whose data and trials are reused


def run(ctx: Context) -> Outcome:
    """Measure, and return numbers, tables, findings and figures; trials store their own arrays."""
    observations = measure(ctx)
    measurements = numbers.measurements(observations)
    return Outcome(
        measurements,
        tables=tables.tables(observations),
        findings=report.findings(observations, measurements),
        figures=figures.figures(observations, measurements),
        environment=describe(ctx, observations),
    )


def plan(config: Config) -> Plan:
    """Return the settings that a config describes.

    Raises:
        ContractError: rates that do not rise, a second rank without exactly three of the first
            one's rates, a control at a rate that is not swept, or a single seed.
    """
    _check(config)
    lora = config["lora"]
    second = config["second"]
    control_rate = config["training"]["learning_rate"]
    return Plan(
        first_rank=tuple(Setting(lora["r"], lora["lora_alpha"], rate) for rate in config["rates"]),
        second_rank=tuple(
            Setting(second["r"], second["lora_alpha"], rate) for rate in second["rates"]
        ),
        control=Setting(lora["r"], lora["lora_alpha"], control_rate, shuffled=True),
        seeds=tuple(config["seeds"]),
        spikes=SpikeThresholds(gradient=config["gradient_spike"], loss=config["loss_spike"]),
    )


def _check(config: Config) -> None:
    """Raise ContractError for settings that cannot be compared."""
    rates = config["rates"]
    second_rates = config["second"]["rates"]
    control_rate = config["training"]["learning_rate"]
    for key, values in (("rates", rates), ("second.rates", second_rates)):
        if sorted(set(values)) != values:
            msg = f"{key}: got {values}; expected each above the one before (rising)"
            raise ContractError(msg)
    if len(second_rates) != 3 or not set(second_rates) <= set(rates):
        msg = (
            f"second.rates: got {second_rates}; expected exactly three of rates {rates}, for a "
            "parabola at both ranks"
        )
        raise ContractError(msg)
    if control_rate not in rates:
        msg = (
            f"training.learning_rate: got {control_rate}; expected one of rates {rates}, with "
            "which the control is compared"
        )
        raise ContractError(msg)
    if len(config["seeds"]) < 2:
        msg = (
            f"seeds: got {config['seeds']}; expected at least two, because one seed cannot "
            "separate a rate's effect from the seed's"
        )
        raise ContractError(msg)


def measure(ctx: Context) -> LearningRateObservations:
    """Run the trials that FEAT-005 has not run; each is stored below artifacts/trials/."""
    from lab.instruments import sweep, trials

    # 1. Every setting with every seed.
    sweep_plan = plan(ctx.config)
    planned_trials = {}
    for setting in (*sweep_plan.true_answers, sweep_plan.control):
        row = [_trial(setting, seed, ctx.config) for seed in sweep_plan.seeds]
        planned_trials[setting] = row
    with sweep.open_context(ctx, EARLIER) as (sweep_context, earlier):
        # 2. The formula's prediction, before any loss is known.
        model_config = json.loads((sweep_context.model / "config.json").read_text("utf-8"))
        hidden_size = model_config["hidden_size"]
        predicted_rate = formula_rate(model_config["model_type"], hidden_size)

        # 3. The model without an adapter, then every trial.
        artifacts = ctx.out / "artifacts"
        ctx.progress(0, 1, "evaluating the base")
        base = trials.base(sweep_context, artifacts, earlier=earlier)
        results = trials.run(
            list(itertools.chain.from_iterable(planned_trials.values())),
            sweep_context,
            artifacts,
            workers=ctx.config["workers"],
            earlier=earlier,
            progress=ctx.progress,
        )
        sweep_settings = sweep_context.description()

    # 4. By setting, in the order of the plan.
    results_by_setting = {}
    for setting, row in planned_trials.items():
        results_by_setting[setting] = tuple(results[trial] for trial in row)
    return LearningRateObservations(
        plan=sweep_plan,
        base=base,
        results=results_by_setting,
        formula_rate=predicted_rate,
        hidden_size=hidden_size,
        sweep_settings=sweep_settings,
    )


def _trial(setting: Setting, seed: int, config: Config) -> Trial:
    """Return the trial of a setting with a seed."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    return Trial(
        seed=seed,
        training=Settings(**{**config["training"], "learning_rate": setting.rate}),
        lora=LoraSettings(setting.rank, setting.alpha),
        examples=config["examples"],
        shuffled=setting.shuffled,
    )


def describe(ctx: Context, observations: LearningRateObservations) -> dict[str, Any]:
    """Return what it takes to repeat the run, beyond what `conduct` records of every run."""
    reused = 0
    for results in observations.results.values():
        reused += sum(result.reused for result in results)
    return {
        "model": ctx.config["model"],
        "hidden_size": observations.hidden_size,
        "sweep_context": dict(observations.sweep_settings),
        "taken_over": reused,
    }


if __name__ == "__main__":
    main(EXPERIMENT, run)
