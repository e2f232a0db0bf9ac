"""FEAT-006's experiment on the tiny model: whole, with sentences that follow from its numbers."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gates.learning_rate.arrays import RECOMPUTED
from lab.config import Config, load_config
from lab.contract import Context, ContractError, Inputs, conduct
from lab.learning_rate import experiment, figures, numbers, report, tables
from tests.lab.conftest import write_chats

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/learning_rate/experiment.yaml"


def smoke_config(source: Path) -> Config:
    config = load_config(CONFIG, "smoke")
    data = Config({**config["data"], "source": str(source)}, "data")
    return Config({**config, "data": data}, "test")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the outputs of a whole run of the profile smoke."""
    folder = tmp_path_factory.mktemp("learning_rate")
    write_chats(folder / "chats.jsonl")
    config = smoke_config(folder / "chats.jsonl")
    out = folder / "out"
    out.mkdir()
    ctx = Context(config, "smoke", 0, Inputs(), out, lambda done, total, note: None)
    conduct(experiment.EXPERIMENT, experiment.run, ctx)
    return out


@pytest.fixture(scope="module")
def observations(out):
    """Return what a second run observes that is given the first one as FEAT-005."""
    entries = {"FEAT-005": {"kind": "feature", "path": str(out), "receipt": "sha256:00"}}
    second_out = out.parent / "second"
    second_out.mkdir()
    config = smoke_config(out.parent / "chats.jsonl")
    ctx = Context(config, "smoke", 0, Inputs(entries), second_out, lambda done, total, note: None)
    return experiment.measure(ctx)


def result(out):
    return json.loads((out / "result.json").read_text())


def test_the_gate_judges_exactly_what_is_measured(out):
    assert set(result(out)["measurements"]) == set(RECOMPUTED)


def test_trials_of_an_earlier_feature_are_taken_over_with_the_same_numbers(out, observations):
    """The second run finds every trial in the first one's folder, and measures the same."""
    every_result = [run for runs in observations.results.values() for run in runs]
    assert all(run.reused for run in every_result)
    assert not (out.parent / "second/artifacts/trials").exists()

    measurements = numbers.measurements(observations)
    as_json = {name: m.to_json() for name, m in measurements.items()}
    assert as_json == result(out)["measurements"]
    captions = [figure.caption for figure in figures.figures(observations, measurements)]
    assert captions == [figure["caption"] for figure in result(out)["figures"]]
    seeds = result(out)["environment"]["config"]["seeds"]
    assert seeds == list(observations.plan.seeds)


def test_runs_of_a_seed_differ_in_nothing_but_their_setting(observations):
    plan = observations.plan
    for runs in observations.results.values():
        for run, seed in zip(runs, plan.seeds, strict=True):
            assert run.trial.seed == seed
    first_seed = [observations.results[setting][0] for setting in plan.true_answers]
    assert len({run.steps[0].loss for run in first_seed}) == 1, (
        "B is 0: neither rate nor rank changes the first batch's loss"
    )
    assert len({tuple(step.supervised_tokens for step in run.steps) for run in first_seed}) == 1
    control = observations.results[plan.control][0].trial
    counterpart = observations.results[plan.counterpart][0].trial
    assert dataclasses.replace(control, shuffled=False) == counterpart


def test_points_and_their_mean_share_a_colour(observations):
    figure = figures.loss_figure(observations, numbers.measurements(observations))
    groups = [series.group for series in figure.series]
    assert groups == ["rank 16", "rank 16", "rank 64", "rank 64", None, None, None]


def with_losses(observations, level):
    """Return the observations as if held-out losses were others: setting, seed's index -> nats."""

    def replace(run, loss):
        losses = np.full_like(run.evaluation.losses, loss)
        evaluation = dataclasses.replace(run.evaluation, losses=losses)
        return dataclasses.replace(run, evaluation=evaluation)

    results = {}
    for setting, runs in observations.results.items():
        results[setting] = tuple(replace(run, level(setting, i)) for i, run in enumerate(runs))
    base_losses = np.full_like(observations.base.losses, 5.0)
    base = dataclasses.replace(observations.base, losses=base_losses)
    return dataclasses.replace(observations, results=results, base=base)


def bowl(setting, seed, *, best=-3.0, shift=0.0):
    """Return a loss on a parabola in log10 of the rate.

    It is lowest at `best` (rank 16) and at `best` + `shift` (rank 64).
    """
    lowest = best + 0.01 * seed
    if setting.rank == 64:
        lowest += shift
    control_excess = 0.5 if setting.shuffled else 0.0
    return 3 + (np.log10(setting.rate) - lowest) ** 2 + control_excess + 0.01 * seed


def findings_text(observations):
    return " ".join(report.findings(observations, numbers.measurements(observations)))


def test_a_bowl_is_measured_as_it_is(observations):
    bowls = with_losses(observations, lambda s, i: bowl(s, i, best=-2.9, shift=0.2))
    measurements = numbers.measurements(bowls)
    assert measurements["optimum_log10_rate"].values == pytest.approx([-2.9, -2.89], abs=1e-4)
    assert measurements["optimum_log10_rate_r64"].value == pytest.approx(-2.695, abs=1e-4)
    assert measurements["optimum_shift"].values == pytest.approx([0.2, 0.2], abs=1e-4)
    assert measurements["best_rate"].value == measurements["best_rate_r64"].value == 1e-3
    assert measurements["winner_unchanged_seeds"].value == 2
    assert measurements["control_gap"].value == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("best", "shift", "expected", "unexpected"),
    [
        (-3.0, 0.0, "1e-3 won", "2e-4 won"),
        (-3.7, 0.0, "2e-4 won", "1e-3 won"),
        (-2.2, 0.0, "did win", "did not win"),  # the tiny model's formula says 7.4e-3
        (-3.0, 0.0, "did not win: 1e-3 did", "did win"),
        (-3.0, 0.0, "significantly less than half a step", "not shown"),
        (-3.0, 0.9, "not shown to be less than half a step", "significantly less"),
        (-3.0, 0.0, "the same at rank 64 as at rank 16 in 2 of 2 seeds", "0 of 2"),
        (-3.0, 0.9, "the same at rank 64 as at rank 16 in 0 of 2 seeds", "2 of 2"),
        (-3.0, 0.0, "between the rates that were run", "an extrapolation"),
        (-1.0, 0.0, "outside of the rates that were run", "between the rates that were run"),
    ],
)
def test_another_number_makes_another_sentence(observations, best, shift, expected, unexpected):
    bowls = with_losses(observations, lambda s, i: bowl(s, i, best=best, shift=shift))
    text = findings_text(bowls)
    assert expected in text
    assert unexpected not in text


def test_losses_that_bend_downwards_show_no_optimum(observations):
    hills = with_losses(observations, lambda s, i: 9 - bowl(s, i))
    measurements = numbers.measurements(hills)
    assert measurements["optimum_log10_rate"].value is measurements["optimum_shift"].value is None
    assert "they show no optimum" in findings_text(hills)
    assert "could not be measured" in findings_text(hills)


def test_a_control_that_learns_as_much_is_reported(observations):
    better_control = with_losses(observations, lambda s, i: bowl(s, i) - 0.6 * s.shuffled)
    assert "significantly higher than with shuffled ones" in findings_text(better_control)
    noisy_control = with_losses(observations, lambda s, i: bowl(s, i) + (i - 1) * s.shuffled)
    assert "not significantly different from that with shuffled ones" in findings_text(
        noisy_control
    )


@pytest.mark.parametrize(
    ("smallest", "expected"), [(4.0, "which learned too"), (4.99, "which hardly learned")]
)
def test_a_smallest_rate_that_learns_is_no_floor(observations, smallest, expected):
    losses = with_losses(observations, lambda s, i: smallest if s.rate == 1e-5 else bowl(s, i))
    text = findings_text(losses)
    assert expected in text
    names_the_batches = "the difference between batches alone" in text
    assert names_the_batches == (expected == "which hardly learned")


def test_an_unknown_family_has_no_prediction(observations):
    unknown = dataclasses.replace(observations, formula_rate=None)
    assert "it made no prediction" in findings_text(unknown)
    figure = figures.loss_figure(unknown, numbers.measurements(unknown))
    assert "makes no prediction" in figure.caption


def test_a_climb_of_one_run_is_counted_in_it_alone(observations):
    # 1. The second seed of the highest rate climbs by 2 nats and has one large gradient.
    highest = observations.plan.first_rank[-1]
    first_run, run = observations.results[highest]
    steps = list(run.steps)
    steps[2] = dataclasses.replace(steps[2], loss=steps[2].loss + 2.0)
    steps[1] = dataclasses.replace(steps[1], grad_norm=1e3)
    unstable = dataclasses.replace(run, steps=tuple(steps))
    results = observations.results | {highest: (first_run, unstable)}
    changed = dataclasses.replace(observations, results=results)

    # 2. The measurements count it once.
    before = numbers.measurements(observations)
    after = numbers.measurements(changed)
    assert after["loss_spikes"].value == before["loss_spikes"].value + 1
    assert after["gradient_spikes"].value == before["gradient_spikes"].value + 1
    values_before = before["instability_same_batches_lr5e_3"].values
    values_after = after["instability_same_batches_lr5e_3"].values
    assert values_after[0] == values_before[0]
    assert values_after[1] > values_before[1] + 1

    # 3. The table shows it in the row of that trial.
    rows = [row for row in tables.runs_table(changed).rows if row[8]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (highest.rank, highest.rate, observations.plan.seeds[1])
    ]


@pytest.mark.parametrize(
    ("rate", "name"),
    [(1e-5, "1e_5"), (2e-4, "2e_4"), (1e-3, "1e_3"), (5e-3, "5e_3"), (1.5e-3, "1_5e_3")],
)
def test_a_rate_has_a_name(rate, name):
    assert numbers.rate_tag(rate) == name


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile):
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings

    config = load_config(CONFIG, profile)
    settings = Settings(**config["training"])
    LoraSettings(**config["lora"])
    assert settings.steps * settings.batch_size == config["examples"], "every example is seen once"
    assert config["examples"] <= config["data"]["train"]
    assert config["second"]["lora_alpha"] == config["lora"]["lora_alpha"], (
        "alpha changes together with the rank"
    )
    assert {
        "model",
        "dtype",
        "device",
        "workers",
        "threads",
        "gradient_spike",
        "loss_spike",
    } <= set(config)
    plan = experiment.plan(config)
    assert len(plan.true_answers) == 7
    assert (plan.spikes.gradient, plan.spikes.loss) == (10, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": [1e-3, 2e-4]}, "rising"),
        ({"rates": [2e-4, 1e-3]}, "exactly three"),
        ({"training": {"learning_rate": 3e-3}}, "expected one of rates"),
        ({"seeds": [0]}, "at least two"),
    ],
)
def test_a_config_that_cannot_be_compared_is_refused(change, message):
    config = Config({**load_config(CONFIG, "cpu"), **change}, "test")
    with pytest.raises(ContractError, match=message):
        experiment.plan(config)


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.learning_rate.experiment; "
        "assert not {'torch', 'matplotlib', 'scipy.stats', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
