"""FEAT-005's experiment on the tiny model: complete, as planned, findings true to the numbers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gates.loss_curves import arrays as gate
from lab.config import Config, load_config
from lab.contract import Context, Inputs, Measurement, conduct
from lab.loss_curves import experiment, report
from lab.loss_curves.measured import LossCurvePlan
from tests.lab.conftest import write_chats

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/loss_curves/experiment.yaml"


def make_context(profile: str, out: Path, changes: dict | None = None) -> Context:
    config = Config({**load_config(CONFIG, profile), **(changes or {})}, "test")
    return Context(config, profile, 0, Inputs(), out, lambda done, total, note: None)


def load_plan(profile: str) -> LossCurvePlan:
    return LossCurvePlan.from_config(load_config(CONFIG, profile))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the outputs of a run of the smoke profile on a few chats."""
    folder = tmp_path_factory.mktemp("loss_curves")
    chats = write_chats(folder / "chats.jsonl")
    data = {**load_config(CONFIG, "smoke")["data"], "source": str(chats)}
    (folder / "out").mkdir()
    ctx = make_context("smoke", folder / "out", {"data": Config(data, "data")})
    conduct(experiment.EXPERIMENT, experiment.run, ctx)
    return folder / "out"


def test_the_run_is_complete(out):
    result = json.loads((out / "result.json").read_text())
    paths = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(result["files"]) == paths - {"result.json", "report.md"}
    assert {figure["name"] for figure in result["figures"]} == {
        "held_out",
        "training",
        "staircase",
        "batch_size",
        "line",
    }
    sizes = [str(size) for size in load_config(CONFIG, "smoke")["batches"]]
    assert {name for name in result["measurements"] if "_b" not in name} == {
        name for name in gate.MEASUREMENTS if "_b" not in name
    }
    assert {name for name in result["measurements"] if name.startswith("eval_loss_b")} == {
        f"eval_loss_b{size}_{rate}" for size in sizes for rate in gate.RATES
    }


def test_points_and_the_line_through_them_share_a_colour(out):
    for name, groups in (
        ("staircase", ["training", "training", None]),
        ("batch_size", ["low", "low", "high", "high"]),
    ):
        figure = json.loads((out / f"figures/{name}.json").read_text())
        assert [series["group"] for series in figure["series"]] == groups


def test_every_batch_size_sees_the_same_examples_once(out):
    from lab.instruments import trials

    config = make_context("smoke", out).config
    for planned in experiment.planned_grid(config).values():
        training = planned.training
        assert training.steps * training.batch_size == planned.examples == config["examples"]
        assert trials.read(out / "artifacts/trials" / planned.name).trial == planned


def test_the_overfitting_run_repeats_its_examples_and_no_other_does(out):
    for name, planned in experiment.planned_shapes(make_context("cpu", out).config).items():
        seen = planned.training.steps * planned.training.batch_size / planned.examples
        assert (seen > 3) == (name == "overfitting")


def estimate(value, stderr=0.01, n=3):
    return Measurement.of_estimate(value, "", stderr=stderr, n=n)


MEASUREMENTS = {
    **{f"detected_{shape}": Measurement.of_exact(shape) for shape in gate.SHAPES},
    "runs_told_apart": Measurement.of_exact(4, "runs"),
    "base_loss": estimate(4.8),
    "eval_loss_overfitting": estimate(4.0),
    "eval_loss_diverging": estimate(13.0),
    "overfit_gap": estimate(3.9),
    "overfit_rise": estimate(0.8),
    "divergence_rise": estimate(30.0),
    "staircase_share": estimate(0.9, n=5),
    "batch_effect_low": estimate(0.5),
    "batch_effect_high": estimate(0.0),
    "noise_scale_start": estimate(10.0, n=32),
    "noise_scale_healthy": estimate(40.0, n=32),
    "noise_growth": estimate(4.0, n=32),
    "line_minimum_healthy": estimate(1.0, n=32),
    "line_minimum_overfitting": estimate(0.5, n=32),
}


@pytest.mark.parametrize(
    ("name", "value", "text_before", "text_after"),
    [
        ("runs_told_apart", 3, "On 4 of 4 runs", "On 3 of 4 runs"),
        ("staircase_share", 0.5, ": a staircase.", "not distinguishable from a smooth fall"),
        ("staircase_share", 0.2, ": a staircase.", "the opposite of a staircase"),
        ("staircase_share", None, ": a staircase.", "no fall to look for a staircase in"),
        ("batch_effect_low", -0.5, "batch 4 learned more", "batch 16 learned more"),
        (
            "batch_effect_low",
            0.01,
            "batch 4 learned more",
            "batch 16 ends 0.01000 ± 0.010 (n = 3) above batch 4 (negative: below), paired by "
            "seed: 3 seeds do not show which learns more from the same",
        ),
        ("noise_growth", 0.5, "noise scale grew", "noise scale shrank"),
        ("noise_growth", None, "noise scale grew", "disagreed too much"),
        (
            "line_minimum_overfitting",
            1.5,
            "went past the minimum",
            "stopped before the minimum",
        ),
        (
            "line_minimum_overfitting",
            2.0,
            "went past the minimum",
            "the minimum may be beyond it",
        ),
        (
            "line_minimum_healthy",
            0.7,
            "Along the healthy run's update the held-out loss is lowest at t = 1.000 ± 0.010 "
            "(n = 32): the run ended at the minimum",
            "Along the healthy run's update the held-out loss is lowest at t = 0.7000 ± 0.010 "
            "(n = 32): the run went past the minimum",
        ),
    ],
)
def test_another_number_makes_another_sentence(name, value, text_before, text_after):
    plan = load_plan("cpu")
    changed = {**MEASUREMENTS, name: replace(MEASUREMENTS[name], value=value)}
    before = " ".join(report.findings(plan, MEASUREMENTS))
    after = " ".join(report.findings(plan, changed))
    assert text_before in before
    assert text_before not in after
    assert text_after in after
    assert text_after not in before


def test_an_interval_is_as_wide_as_three_seeds_make_it():
    low, high = report.confidence_interval(estimate(1.0, stderr=0.1, n=3))
    assert (low, high) == pytest.approx((1 - 0.430265, 1 + 0.430265), abs=1e-5)
    assert report.confidence_interval(Measurement.of_estimate(1.0, "")) is None


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile, tmp_path):
    config = make_context(profile, tmp_path).config
    plan = LossCurvePlan.from_config(config)
    shapes = experiment.planned_shapes(config)
    grid = experiment.planned_grid(config)
    planned = [*shapes.values(), *grid.values()]
    assert len({trial.name for trial in planned}) == len(planned), (
        "two trials would be stored in one folder"
    )
    assert all(trial.examples <= config["data"]["train"] for trial in planned)
    assert config["data"]["curve"] <= config["data"]["evaluation"]
    assert config["noise"]["examples"] <= config["data"]["evaluation"]
    assert plan.thresholds.beta == config["detectors"]["beta"]
    assert {0.0, 1.0} <= set(plan.alphas)
    assert (plan.alphas[0], plan.alphas[-1]) == (-0.5, 2.0)


def test_the_standard_trial_is_the_one_that_later_features_look_for(tmp_path):
    """They reuse it by the digest of its description, so every field must agree."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    grid = experiment.planned_grid(make_context("cpu", tmp_path).config)
    settings = Settings(steps=20, batch_size=8, learning_rate=1e-3, warmup_steps=2)
    assert grid["high", 8, 1] == Trial(1, settings, LoraSettings(16, 32), examples=160)


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.loss_curves.experiment; "
        "assert not {'torch', 'matplotlib', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
