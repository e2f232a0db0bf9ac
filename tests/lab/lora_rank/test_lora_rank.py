"""FEAT-007's experiment on the tiny model: whole, repeatable, its sentences true to its numbers."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from gates.lora_rank.arrays import RECOMPUTED
from lab.config import Config, load_config
from lab.contract import Context, Inputs, Measurement, conduct
from lab.instruments.adapters import LoraSettings
from lab.instruments.training import Settings
from lab.instruments.trials import Trial
from lab.lora_rank import experiment
from lab.lora_rank.first_step import adamw_step, convention
from lab.lora_rank.measured import CONVENTIONS, FirstStep
from lab.lora_rank.numbers import slopes
from lab.lora_rank.report import findings
from tests.lab.conftest import write_chats

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/lora_rank/experiment.yaml"


def run_smoke(out: Path, data: Path) -> Path:
    config = load_config(CONFIG, "smoke")
    config = Config(
        {**config, "data": Config({**config["data"], "source": str(data)}, "data")}, "test"
    )
    out.mkdir()
    ctx = Context(config, "smoke", 0, Inputs(), out, lambda done, total, note: None)
    conduct(experiment.EXPERIMENT, experiment.run, ctx)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the outputs of a run."""
    folder = tmp_path_factory.mktemp("lora_rank")
    return run_smoke(folder / "a", write_chats(folder / "chats.jsonl"))


def result(out):
    return json.loads((out / "result.json").read_text())


def test_the_gate_judges_exactly_what_is_measured(run):
    assert set(result(run)["measurements"]) == set(RECOMPUTED)


@pytest.mark.soak
def test_the_same_seed_gives_the_same_bits(run):
    again = run_smoke(run.parent / "b", run.parent / "chats.jsonl")
    first, second = stored_bytes(run), stored_bytes(again)
    assert first == second
    assert any("full/evaluation" in name for name in first)


def stored_bytes(out: Path) -> dict[str, bytes]:
    """Return file/array -> its bytes; times differ, and numpy lacks the update's bfloat16."""
    arrays = {}
    for path in sorted(out.glob("artifacts/**/*.safetensors")):
        if path.name == "update.safetensors":
            continue
        for name, array in load_file(path).items():
            if name != "seconds":
                arrays[f"{path.relative_to(out)}/{name}"] = array.tobytes()
    return arrays


def test_spectra_are_in_the_order_of_the_layers(run):
    """The first layer's own product, and not that of the first name in a sorted file."""
    folder = min((run / "artifacts/trials").glob("r8-*"))
    tensors = load_file(folder / "adapter_model.safetensors")
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    product = 4.0 * tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
    stored = load_file(run / "artifacts/updates.safetensors")[f"{folder.name}.values"]
    assert np.allclose(stored[0], np.linalg.svd(product)[1][:8], rtol=1e-3, atol=1e-6)


def test_parts_of_the_full_update_are_ordered_as_their_energy(run):
    """The random part of it is the control.

    The tiny model's update must show that the best directions do more.
    """
    numbers = {name: m["value"] for name, m in result(run)["measurements"].items()}
    assert 0 < numbers["full_kept_random_8"] < numbers["full_kept_rank_8"] < 1.1
    table = result(run)["tables"][3]
    shares = {row[0]: row[2] for row in table["rows"]}
    assert shares["none"] == 0.0
    assert shares["full"] == pytest.approx(1.0)
    assert shares["rank 1"] < shares["rank 8"] <= shares["rank 64"] + 1e-3


def test_slopes_are_those_of_a_planted_power_law():
    ranks = np.array([8, 16, 32, 64])
    powers = np.array([0.3, -1.0, 2.0])
    layers = 3
    # one seed: [1, 3, ranks, layers]
    descent = np.repeat((ranks ** powers[:, None])[None, :, :, None], layers, axis=3)
    first_step = FirstStep(descent, np.ones((1, layers)), np.ones((1, 3, 4)))
    assert np.allclose(slopes(first_step, ranks), powers[None])


@pytest.mark.parametrize(
    ("name", "scale"), [("alpha_fixed", 0.5), ("alpha_2r", 2.0), ("rslora", 4.0)]
)
def test_conventions_have_their_scales(name, scale):
    assert convention(name, LoraSettings(64, 32)).scale == scale
    assert CONVENTIONS == ("alpha_fixed", "alpha_2r", "rslora")


def test_the_scale_is_the_one_that_peft_uses():
    from lab.instruments import adapters, models

    for settings in (LoraSettings(4, 8), LoraSettings(16, 32, use_rslora=True)):
        model = adapters.attach(models.tiny(0), settings, 0)
        layers = [module for module in model.modules() if hasattr(module, "lora_A")]
        assert {layer.scaling["default"] for layer in layers} == {settings.scale}


def test_the_derivation_holds_for_a_gradient_of_noise():
    """For any G: so it is no evidence about learning. A real AdamW step on random matrices."""
    generator = torch.Generator().manual_seed(0)
    ranks = (8, 16, 32, 64)
    G = torch.randn(192, 576, generator=generator)
    settings = Settings(20, 8, 1e-3, 2)
    descent = np.zeros((1, 3, 4, 1))  # [seeds, conventions, ranks, layers]
    for j, r in enumerate(ranks):
        A = (torch.rand(r, 576, generator=generator) - 0.5) / 12
        for i, name in enumerate(CONVENTIONS):
            scale = convention(name, LoraSettings(r, 32)).scale
            (descent[0, i, j, 0],), _ = adamw_step({"w": G @ A.T}, scale, settings)
    first_step = FirstStep(descent, np.ones((1, 1)), np.ones((1, 3, 4)))
    assert np.abs(slopes(first_step, ranks) - [[0.0, 1.0, 0.5]]).max() < 0.05


MEASUREMENTS = {
    name: Measurement.of_estimate(value, "", stderr=0.01, n=3)
    for name, value in {
        **{f"loss_r{r}": 2.5 for r in (8, 16, 32, 64)},
        "rank_gap": 0.01,
        "rank_spread": 0.05,
        "rank_equivalence_p": 0.01,
        "alpha_2r_gap": 0.5,
        "rslora_gap": -0.5,
        "first_step_slope_alpha_fixed": 0.0,
        "first_step_slope_alpha_2r": 1.0,
        "first_step_slope_rslora": 0.5,
        "energy_rank_r64": 20.0,
        "energy_rank_full": 200.0,
        "similarity_left": 0.5,
        "similarity_right": 0.01,
        "similarity_learned": 0.6,
        "similarity_null": 0.002,
        "full_kept_rank_8": 0.8,
        "full_kept_random_8": 0.02,
    }.items()
}


@pytest.mark.parametrize(
    ("name", "value", "before", "after"),
    [
        (
            "rank_equivalence_p",
            0.2,
            "are equivalent within",
            "could not be shown to be equivalent within",
        ),
        (
            "alpha_2r_gap",
            0.0,
            "with alpha = 2r the loss is significantly higher",
            "with alpha = 2r the loss is not significantly different",
        ),
        (
            "rslora_gap",
            0.5,
            "with rsLoRA it is significantly lower",
            "with rsLoRA it is significantly higher",
        ),
        ("full_kept_rank_8", 0.4, "few directions are enough", "needs more directions"),
        (
            "full_kept_rank_8",
            0.05,
            "few directions are enough",
            "no more than random directions do",
        ),
    ],
)
def test_another_number_makes_another_sentence(name, value, before, after):
    changed = {**MEASUREMENTS, name: dataclasses.replace(MEASUREMENTS[name], value=value)}
    assert before in " ".join(findings(MEASUREMENTS, 0.1))
    assert after in " ".join(findings(changed, 0.1))
    assert before not in " ".join(findings(changed, 0.1))


def test_points_and_their_mean_have_one_colour(run):
    series = json.loads((run / "figures/loss_by_rank.json").read_text())["series"]
    assert series[0]["group"] == series[1]["group"] == "alpha fixed"
    assert [one["group"] for one in series[2:]] == [None, None, None]


@pytest.mark.parametrize("name", ["numbers", "report", "figures", "tables"])
def test_reports_are_made_without_torch(name):
    code = f"import sys, lab.lora_rank.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile):
    config = load_config(CONFIG, profile)
    plan = experiment.plan(config)
    assert list(plan) == ["r8", "r16", "r32", "r64", "alpha_2r", "rslora"]
    assert all(len(row) == len(config["seeds"]) for row in plan.values())
    assert {8} <= set(config["full"]["cuts"]) and config["full"]["control"] == 8
    assert {"model", "dtype", "device", "workers", "threads", "equivalence_margin"} <= set(config)
    assert config["examples"] <= config["data"]["train"]


def test_trials_are_those_that_earlier_features_run():
    """To the letter, or they would be run once more: the description is what they are found by."""
    plan = experiment.plan(load_config(CONFIG, "cpu"))
    rates = load_config(ROOT / "lab/learning_rate/experiment.yaml", "cpu")
    settings = Settings(**{**rates["training"], "learning_rate": 1e-3})
    for r, alpha in ((16, rates["lora"]["lora_alpha"]), (64, rates["second"]["lora_alpha"])):
        expected = Trial(0, settings, LoraSettings(r, alpha), rates["examples"])
        actual = plan[f"r{r}"][0]
        assert json.dumps(dataclasses.asdict(actual)) == json.dumps(dataclasses.asdict(expected))


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.lora_rank.experiment; "
        "assert not {'torch', 'matplotlib', 'scipy.stats', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
