"""FEAT-006's experiment on the tiny model: whole, with sentences that follow from its numbers."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gates.learning_rate import arrays as gate
from lab.config import Config, load_config
from lab.contract import Context, ContractError, Inputs
from lab.learning_rate import experiment as learning_rate_exploration
from lab.learning_rate import figures, tables
from lab.learning_rate import numbers as report
from lab.learning_rate import report as sentences

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/learning_rate/experiment.yaml"
SPIKES = report.Spikes(10, 0.5)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A whole run of the profile smoke: what it observations, its settings, and its folder."""
    out = tmp_path_factory.mktemp("learning_rates") / "out"
    out.mkdir()
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{i:03}"},
                {"role": "assistant", "content": f"answer {i}"},
            ]
        }
        for i in range(60)
    ]
    source = out.parent / "chats.jsonl"
    source.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    config = load_config(CONFIG, "smoke")
    config = Config(
        {**config, "data": Config({**config["data"], "source": str(source)}, "data")}, "test"
    )
    ctx = Context(config, "smoke", 0, Inputs(), out, lambda done, total, note: None)
    learning_rate_exploration.run(ctx)
    again = dataclasses.replace(ctx, out=out.parent / "again")
    again.out.mkdir()
    known = {"FEAT-005": {"kind": "feature", "path": str(out), "receipt": "sha256:00"}}
    return (
        learning_rate_exploration.measure(dataclasses.replace(again, inputs=Inputs(known))),
        config,
        out,
    )


def result(out):
    return json.loads((out / "result.json").read_text())


def test_the_gate_judges_exactly_what_is_measured(ran):
    assert set(result(ran[2])["measurements"]) == set(gate.RECOMPUTED)


def test_what_was_run_before_is_taken_over_with_the_same_numbers(ran):
    """The second measurement found everything in the first one's folder, and says the same."""
    observations, config, out = ran
    assert all(run.reused for runs in observations.runs.values() for run in runs)
    assert not (out.parent / "again/artifacts/trials").exists()
    numbers = {name: m.to_json() for name, m in report.measurements(observations, SPIKES).items()}
    assert numbers == result(out)["measurements"]
    assert [
        figure.caption
        for figure in figures.figures(observations, report.measurements(observations, SPIKES))
    ] == [figure["caption"] for figure in result(out)["figures"]]
    assert config["seeds"] == list(observations.plan.seeds)


def test_runs_of_a_seed_differ_in_nothing_but_their_setting(ran):
    observations = ran[0]
    for runs in observations.runs.values():
        for run, seed in zip(runs, observations.plan.seeds, strict=True):
            assert run.trial.seed == seed
    first = [observations.runs[s][0] for s in observations.plan.true]
    assert len({run.steps[0].loss for run in first}) == 1, (
        "B is 0: the first batch's loss knows no rate and no rank"
    )
    assert len({tuple(s.supervised_tokens for s in run.steps) for run in first}) == 1
    control, compared = (
        observations.runs[observations.plan.control][0].trial,
        observations.runs[observations.plan.compared][0].trial,
    )
    assert dataclasses.replace(control, shuffled=False) == compared


def with_losses(observations, levels):
    """The same runs as if their held-out losses had been others: setting and seed → nats."""

    def changed(setting, i, run):
        flat = np.full_like(run.evaluation.losses, levels(setting, i))
        return dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, losses=flat))

    runs = {
        s: tuple(changed(s, i, run) for i, run in enumerate(runs))
        for s, runs in observations.runs.items()
    }
    base = dataclasses.replace(
        observations.base, losses=np.full_like(observations.base.losses, 5.0)
    )
    return dataclasses.replace(observations, runs=runs, base=base)


def bowl(setting, seed, *, best=-3.0, other=0.0):
    """Losses on a parabola in log10 of the rate.

    Lowest at `best` (rank 16) and at `best` + `other` (rank 64).
    """
    lowest = best + (other if setting.rank == 64 else 0.0) + 0.01 * seed
    return (
        3 + (np.log10(setting.rate) - lowest) ** 2 + (0.5 if setting.shuffled else 0) + 0.01 * seed
    )


def told(observations):
    return " ".join(sentences.findings(observations, report.measurements(observations, SPIKES)))


def test_a_bowl_is_measured_as_it_is(ran):
    found = report.measurements(
        with_losses(ran[0], lambda s, i: bowl(s, i, best=-2.9, other=0.2)), SPIKES
    )
    assert found["optimum_log10_rate"].values == pytest.approx([-2.9, -2.89], abs=1e-4)
    assert found["optimum_log10_rate_r64"].value == pytest.approx(-2.695, abs=1e-4)
    assert found["optimum_shift"].values == pytest.approx([0.2, 0.2], abs=1e-4)
    assert found["best_rate"].value == found["best_rate_r64"].value == 1e-3
    assert found["winner_unchanged_seeds"].value == 2
    assert found["control_gap"].value == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("best", "other", "said", "not_said"),
    [
        (-3.0, 0.0, "1e-3 won", "2e-4 won"),
        (-3.7, 0.0, "2e-4 won", "1e-3 won"),
        (-2.2, 0.0, "did win", "did not win"),  # the tiny model's formula says 7.4e-3
        (-3.0, 0.0, "did not win: 1e-3 did", "did win"),
        (-3.0, 0.0, "surely less than half a step", "not shown"),
        (-3.0, 0.9, "not shown to be less than half a step", "surely less"),
        (-3.0, 0.0, "same of three rates in 2 of 2 seeds", "0 of 2"),
        (-3.0, 0.9, "same of three rates in 0 of 2 seeds", "2 of 2"),
        (-3.0, 0.0, "between the rates that were run", "an extrapolation"),
        (-1.0, 0.0, "outside of the rates that were run", "between the rates that were run"),
    ],
)
def test_another_number_makes_another_sentence(ran, best, other, said, not_said):
    text = told(with_losses(ran[0], lambda s, i: bowl(s, i, best=best, other=other)))
    assert said in text
    assert not_said not in text


def test_losses_that_bend_downwards_show_no_optimum(ran):
    observations = with_losses(ran[0], lambda s, i: 9 - bowl(s, i))
    found = report.measurements(observations, SPIKES)
    assert found["optimum_log10_rate"].value is found["optimum_shift"].value is None
    assert "they show no optimum" in told(observations)
    assert "could not be measured" in told(observations)


def test_a_control_that_learns_as_much_is_said(ran):
    worse = with_losses(ran[0], lambda s, i: bowl(s, i) - (0.6 if s.shuffled else 0))
    assert "taught less than shuffled ones" in told(worse)
    noisy = with_losses(ran[0], lambda s, i: bowl(s, i) + (i - 1 if s.shuffled else 0))
    assert "no more than chance beyond shuffled ones" in told(noisy)


@pytest.mark.parametrize(
    ("smallest", "said"), [(4.0, "which learnt too"), (4.99, "which hardly learnt")]
)
def test_a_smallest_rate_that_learns_is_no_floor(ran, smallest, said):
    text = told(with_losses(ran[0], lambda s, i: smallest if s.rate == 1e-5 else bowl(s, i)))
    assert said in text
    assert ("the batches' difference alone" in text) == (said == "which hardly learnt")


def test_an_unknown_family_has_no_prediction(ran):
    observations = dataclasses.replace(ran[0], formula=None)
    assert "it made no prediction" in told(observations)
    assert (
        "makes no prediction"
        in figures.loss_by_rate(observations, report.measurements(observations, SPIKES)).caption
    )


def test_a_climb_of_one_run_is_counted_in_it_alone(ran):
    observations = ran[0]
    highest = observations.plan.first[-1]
    run = observations.runs[highest][1]
    steps = [
        dataclasses.replace(step, loss=step.loss + 2.0 * (t == 2))
        for t, step in enumerate(run.steps)
    ]
    steps[1] = dataclasses.replace(steps[1], grad_norm=1e3)
    wild = dataclasses.replace(run, steps=tuple(steps))
    changed = dataclasses.replace(
        observations, runs=observations.runs | {highest: (observations.runs[highest][0], wild)}
    )
    before, after = report.measurements(observations, SPIKES), report.measurements(changed, SPIKES)
    assert after["loss_spikes"].value == before["loss_spikes"].value + 1
    assert after["gradient_spikes"].value == before["gradient_spikes"].value + 1
    first, second = (m["instability_same_batches_lr5e_3"].values for m in (before, after))
    assert second[0] == first[0]
    assert second[1] > first[1] + 1
    rows = [row for row in tables.runs(changed, SPIKES).rows if row[8]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (highest.rank, highest.rate, observations.plan.seeds[1])
    ]


@pytest.mark.parametrize(
    ("rate", "name"),
    [(1e-5, "1e_5"), (2e-4, "2e_4"), (1e-3, "1e_3"), (5e-3, "5e_3"), (1.5e-3, "1_5e_3")],
)
def test_a_rate_has_a_name(rate, name):
    assert report.tag(rate) == name


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
    assert len(learning_rate_exploration.plan(config).true) == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rates": [1e-3, 2e-4]}, "rising"),
        ({"rates": [2e-4, 1e-3]}, "exactly three"),
        ({"training": {"learning_rate": 3e-3}}, "wanted one of rates"),
        ({"seeds": [0]}, "at least two"),
    ],
)
def test_a_config_that_cannot_be_compared_is_refused(change, said):
    with pytest.raises(ContractError, match=said):
        learning_rate_exploration.plan(Config({**load_config(CONFIG, "cpu"), **change}, "test"))


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.learning_rate.experiment; "
        "assert not {'torch', 'matplotlib', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
