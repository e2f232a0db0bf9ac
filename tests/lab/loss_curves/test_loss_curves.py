"""FEAT-005's experiment on the tiny model: whole, as planned, its sentences true to its numbers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gates.loss_curves import arrays as gate
from lab.config import Config, load_config
from lab.contract import Context, Inputs, Measurement
from lab.loss_curves import experiment as loss_curve_analysis
from lab.loss_curves import report as loss_curve_text

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/loss_curves/experiment.yaml"


def context(profile: str, out: Path, changes: dict | None = None) -> Context:
    config = Config({**load_config(CONFIG, profile), **(changes or {})}, "test")
    return Context(config, profile, 0, Inputs(), out, lambda done, total, note: None)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run of the smoke profile on a few chats."""
    folder = tmp_path_factory.mktemp("loss_curves")
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{i:03}"},
                {"role": "assistant", "content": f"answer {i}"},
            ]
        }
        for i in range(60)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    data = {**load_config(CONFIG, "smoke")["data"], "source": str(folder / "chats.jsonl")}
    (folder / "out").mkdir()
    loss_curve_analysis.run(context("smoke", folder / "out", {"data": Config(data, "data")}))
    return folder / "out"


def test_the_run_is_whole(out):
    told = json.loads((out / "result.json").read_text())
    places = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(told["files"]) == places - {"result.json", "report.md"}
    assert {figure["name"] for figure in told["figures"]} == {
        "held_out",
        "training",
        "staircase",
        "batch_size",
        "line",
    }
    sizes = [str(size) for size in load_config(CONFIG, "smoke")["batches"]]
    assert {name for name in told["measurements"] if "_b" not in name} == {
        n for n in gate.NAMES if "_b" not in n
    }
    assert {n for n in told["measurements"] if n.startswith("eval_loss_b")} == {
        f"eval_loss_b{size}_{rate}" for size in sizes for rate in gate.RATES
    }


def test_every_batch_size_sees_the_same_examples_once(out):
    from lab.instruments import trials

    config = context("smoke", out).config
    for planned in loss_curve_analysis.planned_grid(config).values():
        assert (
            planned.training.steps * planned.training.batch_size
            == planned.examples
            == config["examples"]
        )
        assert trials.read(out / "artifacts/trials" / planned.name).trial == planned


def test_the_overfitting_run_repeats_its_examples_and_no_other_does(out):
    for name, planned in loss_curve_analysis.planned_shapes(context("cpu", out).config).items():
        seen = planned.training.steps * planned.training.batch_size / planned.examples
        assert (seen > 3) == (name == "overfitting")


def measured(value, stderr=0.01, n=3):
    return Measurement.of_estimate(value, "", stderr=stderr, n=n)


NUMBERS = {
    **{f"detected_{shape}": Measurement.of_exact(shape) for shape in gate.SHAPES},
    "runs_told_apart": Measurement.of_exact(4, "runs"),
    "base_loss": measured(4.8),
    "eval_loss_overfitting": measured(4.0),
    "eval_loss_diverging": measured(13.0),
    "overfit_gap": measured(3.9),
    "overfit_rise": measured(0.8),
    "divergence_rise": measured(30.0),
    "staircase_share": measured(0.9, n=5),
    "batch_effect_low": measured(0.5),
    "batch_effect_high": measured(0.0),
    "noise_scale_start": measured(10.0, n=32),
    "noise_scale_healthy": measured(40.0, n=32),
    "noise_growth": measured(4.0, n=32),
    "line_minimum_healthy": measured(1.0, n=32),
    "line_minimum_overfitting": measured(0.5, n=32),
}


@pytest.mark.parametrize(
    ("name", "value", "said", "then"),
    [
        ("runs_told_apart", 3, "On 4 of 4 runs", "On 3 of 4 runs"),
        ("staircase_share", 0.5, ": a staircase.", "not surely a staircase"),
        ("staircase_share", 0.2, ": a staircase.", "the opposite of a staircase"),
        ("staircase_share", None, ": a staircase.", "no stairs to speak of"),
        ("batch_effect_low", -0.5, "batch 4 learnt more", "batch 16 learnt more"),
        (
            "batch_effect_low",
            0.01,
            "batch 4 learnt more",
            "3 seeds do not tell which learns more from the same",
        ),
        ("noise_growth", 0.5, "noise scale grew", "noise scale shrank"),
        ("noise_growth", None, "noise scale grew", "disagreed too much"),
        ("line_minimum_overfitting", 1.5, "it went past the best", "it stopped short of the best"),
        (
            "line_minimum_overfitting",
            2.0,
            "it went past the best",
            "the lowest place may lie beyond it",
        ),
        (
            "line_minimum_healthy",
            0.7,
            "it ended where its own way is best",
            "Along the healthy run's update",
        ),
    ],
)
def test_another_number_makes_another_sentence(tmp_path, name, value, said, then):
    ctx = context("cpu", tmp_path)
    before = " ".join(loss_curve_text.findings(ctx, NUMBERS))
    after = " ".join(
        loss_curve_text.findings(ctx, {**NUMBERS, name: replace(NUMBERS[name], value=value)})
    )
    assert said in before
    assert then in after
    assert before != after


def test_an_interval_is_as_wide_as_three_seeds_make_it():
    low, high = loss_curve_text.interval(measured(1.0, stderr=0.1, n=3))
    assert (low, high) == pytest.approx((1 - 0.430265, 1 + 0.430265), abs=1e-5)
    assert loss_curve_text.interval(Measurement.of_estimate(1.0, "")) is None


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile, tmp_path):
    from lab.instruments.curves import Thresholds

    config = context(profile, tmp_path).config
    shapes = loss_curve_analysis.planned_shapes(config)
    grid = loss_curve_analysis.planned_grid(config)
    every = [*shapes.values(), *grid.values()]
    assert len({trial.name for trial in every}) == len(every), (
        "two trials would be stored in one place"
    )
    assert all(trial.examples <= config["data"]["train"] for trial in every)
    assert config["data"]["curve"] <= config["data"]["evaluation"]
    assert config["noise"]["examples"] <= config["data"]["evaluation"]
    Thresholds(**config["detectors"])
    at = loss_curve_analysis.along(config)
    assert {0.0, 1.0} <= set(at)
    assert (at[0], at[-1]) == (-0.5, 2.0)


def test_the_standard_trial_is_the_one_that_later_features_look_for(tmp_path):
    """Its description, to the last field: they take it over by the digest of it."""
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings
    from lab.instruments.trials import Trial

    grid = loss_curve_analysis.planned_grid(context("cpu", tmp_path).config)
    settings = Settings(steps=20, batch_size=8, learning_rate=1e-3, warmup_steps=2)
    assert grid["high", 8, 1] == Trial(1, settings, LoraSettings(16, 32), examples=160)


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.loss_curves.experiment; "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
