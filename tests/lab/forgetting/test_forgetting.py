"""FEAT-008's experiment on the tiny model: complete, repeatable, findings true to numbers."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gates.forgetting import arrays as gate
from lab.config import Config, load_config
from lab.contract import Context, Inputs, conduct
from lab.forgetting import experiment, numbers, report
from tests.lab.conftest import write_chats

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/forgetting/experiment.yaml"
ADAPTERS = ("r16 1e-5", "r16 1e-3", "r16 5e-3")


def context(out: Path, data: Path, seed: int = 0, workers: int = 1) -> Context:
    config = load_config(CONFIG, "smoke")
    adapters = {name: config["adapters"][name] for name in ADAPTERS}
    changes = {
        "data": {**config["data"], "source": str(data)},
        "adapters": adapters,
        "workers": workers,
    }
    out.mkdir()
    return Context(
        Config({**config, **changes}, "test"),
        "smoke",
        seed,
        Inputs(),
        out,
        lambda done, total, note: None,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("forgetting")


@pytest.fixture(scope="module")
def observations(folder, data):
    """Return what one process observes, stored in the folder `a`."""
    ctx = context(folder / "a", data)
    observations = experiment.measure(ctx)
    experiment.store(ctx.out / "artifacts", observations)
    return observations


@pytest.fixture(scope="module")
def outs(folder, data, observations):
    """Return the same run in one process and in two, and one with another seed."""
    for name, seed, workers in (("b", 0, 2), ("c", 1, 1)):
        ctx = context(folder / name, data, seed, workers)
        conduct(experiment.EXPERIMENT, experiment.run, ctx)
    return [folder / name for name in "abc"]


def sentences(observations, **changes):
    """Return the findings as one text, with some measurements changed."""
    comparisons = numbers.compare(observations)
    measurements = numbers.measurements(observations, comparisons)
    for name, change in changes.items():
        measurements[name] = dataclasses.replace(measurements[name], **change)
    return " ".join(report.findings(observations, comparisons, measurements))


def scores(out):
    return {
        name: array.tolist()
        for name, array in load_file(out / "artifacts/scores.safetensors").items()
    }


def test_the_gate_judges_exactly_what_is_measured(observations):
    measurements = numbers.measurements(observations, numbers.compare(observations))
    assert set(measurements) == set(gate.RECOMPUTED)


@pytest.mark.soak
def test_the_same_seed_gives_the_same_bits_in_any_number_of_processes(outs):
    assert scores(outs[0]) == scores(outs[1])
    texts = [(out / "artifacts/text.jsonl").read_bytes() for out in outs]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.soak
def test_the_items_do_not_depend_on_the_seed(outs):
    for suite in ("lab_math", "lab_knowledge"):
        assert len({(out / f"artifacts/suites/{suite}.jsonl").read_bytes() for out in outs}) == 1


def test_norms_are_those_of_the_whole_updates(observations):
    """‖ΔW‖ by way of r × r matrices against the matrix itself."""
    name = ADAPTERS[-1]
    run = observations.runs[name]
    tensors = load_file(run.folder / "adapter_model.safetensors")
    layers = [
        key.removesuffix(".lora_A.weight") for key in tensors if key.endswith("lora_A.weight")
    ]
    assert len(layers) == len(observations.models[name].norms) == 14
    norms = []
    for layer in layers:
        B = tensors[f"{layer}.lora_B.weight"].astype(float)
        A = tensors[f"{layer}.lora_A.weight"]
        norms.append(2.0 * np.linalg.norm(B @ A))
    assert sorted(observations.models[name].norms) == pytest.approx(sorted(norms), rel=1e-5)


def test_the_base_forgets_nothing(observations):
    itself = dataclasses.replace(
        observations, models=dict.fromkeys(observations.models, observations.models["base"])
    )
    for comparison in numbers.compare(itself).values():
        assert comparison.forgetting.value == 0
        assert comparison.p == 1
        assert (comparison.items_lost, comparison.items_won) == (0, 0)
        assert comparison.divergence.value == 0
        assert comparison.text_change.value == 0
        assert comparison.intruders == 0
        assert comparison.norm == 0


def test_a_model_whose_right_choices_lost_likelihood_forgot(observations):
    name = observations.roles["standard"]
    worse = observations.models["base"].log_likelihoods.copy()
    for row, item in zip(worse, observations.items, strict=True):
        row[item.gold] -= 1.0 * len(item.choices[item.gold])  # a nat per byte
    model = dataclasses.replace(observations.models[name], log_likelihoods=worse)
    models = {**observations.models, name: model}
    changed = dataclasses.replace(observations, models=models)
    comparison = numbers.compare(changed)[name]
    assert comparison.forgetting.value == pytest.approx(1.0)
    assert comparison.forgot
    assert f": {name}." in sentences(changed)
    assert ": none." in sentences(observations)


@pytest.mark.parametrize(
    ("name", "value", "stderr", "sentence"),
    [
        ("spearman_rate", 1.0, 0.1, "it rises with the rate"),
        ("spearman_rate", -1.0, 0.1, "it falls with the rate"),
        ("spearman_rate", 1.0, 0.6, "it does not clearly follow the rate"),
        ("mcnemar_p_standard", 0.001, None, "accuracy sees a change"),
        ("mcnemar_p_standard", 0.5, None, "accuracy sees no change"),
        ("kl_standard", 9.0, 0.1, "which differ by more than twice their standard error"),
    ],
)
def test_another_number_makes_another_sentence(observations, name, value, stderr, sentence):
    assert sentence in sentences(observations, **{name: {"value": value, "stderr": stderr}})


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile):
    config = load_config(CONFIG, profile)
    plan = experiment.plan(config, 0)
    assert len({trial.name for trial in plan.values()}) == 8
    assert set(config["roles"].values()) <= set(plan)
    assert {"workers", "threads", "device", "dtype"} <= set(config)


def test_the_planned_adapters_are_those_of_the_features_before():
    plan = experiment.plan(load_config(CONFIG, "cpu"), 0)
    assert [trial.name for trial in plan.values()] == [
        *(f"r16-a32-lr{rate}-b8-s20-n160-seed0" for rate in ("1e-05", "0.0002", "0.001", "0.005")),
        *(
            f"{lora}-lr0.001-b8-s20-n160-seed0"
            for lora in ("r8-a32", "r64-a32", "r64-a128", "r64-rsa32")
        ),
    ]


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.forgetting.experiment as m; "
        "assert not {'torch', 'matplotlib', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
