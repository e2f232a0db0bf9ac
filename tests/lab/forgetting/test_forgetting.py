"""FEAT-008's experiment on the tiny model: whole, repeatable, its sentences true to its numbers."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gates.forgetting import arrays as gate
from lab.config import Config, load_config
from lab.contract import Context, Inputs
from lab.forgetting import experiment as catastrophic_forgetting
from lab.forgetting import numbers as compared
from lab.forgetting import report

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/forgetting/experiment.yaml"
KEPT = ("r16 1e-5", "r16 1e-3", "r16 5e-3")


def context(out: Path, data: Path, seed: int = 0, workers: int = 1) -> Context:
    config = load_config(CONFIG, "smoke")
    adapters = {name: config["adapters"][name] for name in KEPT}
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
    place = tmp_path_factory.mktemp("data") / "chats.jsonl"
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{i:03}"},
                {"role": "assistant", "content": f"answer {i}"},
            ]
        }
        for i in range(60)
    ]
    place.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return place


@pytest.fixture(scope="module")
def outs(data, tmp_path_factory):
    """The same run in one process and in two, and one with another seed."""
    folder = tmp_path_factory.mktemp("forgetting")
    for name, seed, workers in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        catastrophic_forgetting.run(context(folder / name, data, seed, workers))
    return [folder / name for name in "abc"]


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory):
    return catastrophic_forgetting.measure(
        context(tmp_path_factory.mktemp("measured") / "out", data)
    )[0]


def result(out):
    return json.loads((out / "result.json").read_text())


def scores(out):
    return {
        name: array.tolist()
        for name, array in load_file(out / "artifacts/scores.safetensors").items()
    }


def test_the_gate_judges_exactly_what_is_measured(outs):
    assert set(result(outs[0])["measurements"]) == set(gate.RECOMPUTED)


def test_the_same_seed_gives_the_same_bits_in_any_number_of_processes(outs):
    assert scores(outs[0]) == scores(outs[1])
    assert (outs[0] / "artifacts/text.jsonl").read_bytes() == (
        outs[1] / "artifacts/text.jsonl"
    ).read_bytes()
    assert (outs[0] / "artifacts/text.jsonl").read_bytes() != (
        outs[2] / "artifacts/text.jsonl"
    ).read_bytes()


def test_the_items_do_not_depend_on_the_seed(outs):
    for suite in ("lab_math", "lab_knowledge"):
        assert len({(out / f"artifacts/suites/{suite}.jsonl").read_bytes() for out in outs}) == 1


def test_norms_are_those_of_the_whole_updates(observations):
    """‖ΔW‖ by way of r × r matrices against the matrix itself."""
    name = KEPT[-1]
    run = observations.runs[name]
    tensors = load_file(run.folder / "adapter_model.safetensors")
    layers = [
        key.removesuffix(".lora_A.weight") for key in tensors if key.endswith("lora_A.weight")
    ]
    assert len(layers) == len(observations.models[name].norms) == 14
    whole = [
        2.0
        * np.linalg.norm(
            tensors[f"{layer}.lora_B.weight"].astype(float) @ tensors[f"{layer}.lora_A.weight"]
        )
        for layer in layers
    ]
    assert sorted(observations.models[name].norms) == pytest.approx(sorted(whole), rel=1e-5)


def test_the_base_forgot_nothing(observations):
    itself = dataclasses.replace(
        observations, models=dict.fromkeys(observations.models, observations.models["base"])
    )
    for one in compared.compare(itself).values():
        assert (one.forgetting.value, one.p, one.lost, one.won) == (0, 1, 0, 0)
        assert (one.divergence.value, one.text_change.value, one.intruders, one.norm) == (
            0,
            0,
            0,
            0,
        )


def test_a_model_whose_right_choices_lost_likelihood_forgot(observations):
    name = observations.roles["standard"]
    worse = observations.models["base"].log_likelihoods.copy()
    for row, item in zip(worse, observations.items, strict=True):
        row[item.gold] -= 1.0 * len(item.choices[item.gold])  # a nat per byte
    models = {
        **observations.models,
        name: dataclasses.replace(observations.models[name], log_likelihoods=worse),
    }
    changed = dataclasses.replace(observations, models=models)
    one = compared.compare(changed)[name]
    assert one.forgetting.value == pytest.approx(1.0)
    assert report.forgot(one)
    assert f": {name}." in " ".join(report.findings(changed, report.measurements(changed)))
    assert ": none." in " ".join(report.findings(observations, report.measurements(observations)))


@pytest.mark.parametrize(
    ("name", "value", "stderr", "said"),
    [
        ("spearman_rate", 1.0, 0.1, "it rises with the rate"),
        ("spearman_rate", -1.0, 0.1, "it falls with the rate"),
        ("spearman_rate", 1.0, 0.6, "it does not clearly follow the rate"),
        ("mcnemar_p_standard", 0.001, None, "accuracy sees a change"),
        ("mcnemar_p_standard", 0.5, None, "accuracy sees no change"),
        ("kl_standard", 9.0, 0.1, "which differ by more than twice their noise"),
    ],
)
def test_another_number_makes_another_sentence(observations, name, value, stderr, said):
    numbers = report.measurements(observations)
    numbers[name] = dataclasses.replace(numbers[name], value=value, stderr=stderr)
    assert said in " ".join(report.findings(observations, numbers))


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile, tmp_path):
    config = load_config(CONFIG, profile)
    plan = catastrophic_forgetting.plan(
        Context(config, profile, 0, Inputs(), tmp_path, lambda *told: None)
    )
    assert len({trial.name for trial in plan.values()}) == 8
    assert set(config["roles"].values()) <= set(plan)
    assert {"workers", "threads", "device", "dtype"} <= set(config)


def test_the_planned_adapters_are_those_that_the_features_before_hold(tmp_path):
    config = load_config(CONFIG, "cpu")
    plan = catastrophic_forgetting.plan(
        Context(config, "cpu", 0, Inputs(), tmp_path, lambda *told: None)
    )
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
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
