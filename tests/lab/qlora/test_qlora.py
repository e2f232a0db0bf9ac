"""FEAT-001's experiment on the tiny model: complete, repeatable, findings true to the numbers."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gates.qlora import measurements as gate
from lab.config import Config, load_config
from lab.contract import Context, Inputs, Measurement, conduct
from lab.present import quantity
from lab.qlora import experiment, figures, numbers, report
from tests.forks import run_module
from tests.lab.conftest import write_chats

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/qlora/experiment.yaml"


def conduct_smoke(out: Path, source: Path, seed: int) -> Path:
    """Run the smoke profile on the chats of `source`; return its folder of outputs."""
    smoke = load_config(CONFIG, "smoke")
    data = Config({**smoke["data"], "source": str(source)}, "data")
    config = Config({**smoke, "data": data}, "test")
    out.mkdir()
    ctx = Context(config, "smoke", seed, Inputs(), out, lambda done, total, note: None)
    conduct(experiment.EXPERIMENT, experiment.run, ctx)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the outputs of a run."""
    folder = tmp_path_factory.mktemp("qlora")
    source = write_chats(folder / "chats.jsonl")
    return conduct_smoke(folder / "a", source, 0)


@pytest.fixture(scope="module")
def runs(run):
    """Return the same run twice, and one with another seed."""
    source = run.parent / "chats.jsonl"
    same = conduct_smoke(run.parent / "b", source, 0)
    other = conduct_smoke(run.parent / "c", source, 1)
    return [run, same, other]


def result(out):
    return json.loads((out / "result.json").read_text())


def arrays(out):
    from safetensors.numpy import load_file

    lists = {}
    for path in sorted(out.glob("artifacts/**/*.safetensors")):
        for name, array in load_file(path).items():
            if not name.endswith(".seconds"):
                lists[f"{path.relative_to(out)}/{name}"] = array.tolist()
    return lists


def test_the_gate_judges_exactly_what_is_measured(run):
    assert set(result(run)["measurements"]) == set(gate.RECOMPUTED + gate.BOUNDED)


def test_the_parts_of_the_peak_add_up_to_it(run):
    raw = result(run)["measurements"]
    measurements = {name: Measurement.from_json(m) for name, m in raw.items()}
    parts = numbers.peak_parts(measurements)
    assert sum(parts.values()) * numbers.MIB == measurements["memory_peak"].number
    assert parts["runtime"] * numbers.MIB == measurements["memory_process"].number
    # What remains can be below 0: gradients do not exist while activations and logits do.
    remains = parts.pop("other")
    assert remains > -parts["gradients"] - 1
    assert min(parts.values()) > 0
    assert figures.memory_figure(measurements).series[0].x == numbers.PEAK_PARTS


def memory(out):
    return json.loads((out / "artifacts/memory.json").read_text())


def test_activations_are_those_of_the_widest_batch(run):
    activations = memory(run)["activations"]
    assert sum(activations) == result(run)["measurements"]["memory_activations"]["value"]


@pytest.mark.soak
def test_the_widest_batch_is_the_same_for_the_same_data(runs):
    assert memory(runs[0]) == memory(runs[1])


@pytest.mark.soak
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(runs):
    first, same, other = (arrays(out) for out in runs)
    assert first == same
    assert first.keys() == other.keys()
    for name in (
        "artifacts/adapter_initial",
        "artifacts/adapter_true",
        "artifacts/training.safetensors/true.loss",
    ):
        assert all(
            first[key] != other[key]
            for key in first
            if key.startswith(name) and "lora_B" not in key
        )


def test_run_and_control_start_alike_and_differ_in_their_answers_alone(run):
    train, control = (
        (run / f"artifacts/{n}.jsonl").read_text().splitlines() for n in ("train", "control")
    )
    for one, two in zip(map(json.loads, train), map(json.loads, control), strict=True):
        assert one["messages"][0] == two["messages"][0]
        assert one["messages"][1] != two["messages"][1]


def test_stages_cover_the_run(run):
    stages = json.loads((run / "artifacts/stages.json").read_text())
    assert {stage["stage"] for stage in stages} == {
        "loading",
        "data",
        "evaluation",
        "generation",
        "training",
        "quantisation",
    }


MEASUREMENTS = {
    name: Measurement.of_estimate(value, "", stderr=0.01)
    for name, value in {
        "eval_loss_base": 4.0,
        "eval_loss_true": 2.0,
        "eval_loss_shuffled": 3.0,
        "control_gap": 1.0,
        "format_share": 0.5,
        "step_0_difference": 0.0,
        "bits_per_parameter": 4.127,
        "nf4_error": 0.09,
        "fp4_error": 0.12,
        "gaussian_nf4_error": 0.09,
        "gaussian_fp4_error": 0.12,
        "distinct_values": 13.0,
        "gaussian_distinct_values": 32.0,
        **{f"memory_{part}": 1e6 for part in (*numbers.PEAK_PARTS, "process")},
        "memory_rest": 4e6,
        "memory_peak": 8e6,
    }.items()
}


@pytest.mark.parametrize(
    ("name", "value", "before", "after"),
    [
        ("control_gap", -1.0, "taught more than the shuffled", "taught less than the shuffled"),
        ("memory_rest", 5e6, "loaded a model 0.954 MiB,", "loaded a model 1.91 MiB,"),
        (
            "control_gap",
            0.0,
            "taught more than the shuffled",
            "taught no more than chance beyond the shuffled",
        ),
        (
            "distinct_values",
            31.9,
            "they already sit on a 4-bit grid",
            "they do not sit on a 4-bit grid",
        ),
    ],
)
def test_another_number_makes_another_sentence(name, value, before, after):
    changed = {**MEASUREMENTS, name: replace(MEASUREMENTS[name], value=value)}
    assert before in " ".join(report.findings(MEASUREMENTS))
    assert after in " ".join(report.findings(changed))


def test_a_peak_without_the_process_mentions_none():
    """Check the words for a GPU, where the peak is of tensors: rest has no other part."""
    on_gpu = {**MEASUREMENTS, "memory_rest": replace(MEASUREMENTS["memory_rest"], value=3e6)}
    for measurements, is_mentioned in ((MEASUREMENTS, True), (on_gpu, False)):
        peak = quantity(measurements["memory_peak"])
        finding = report.findings(measurements)[-1]
        caption = figures.memory_figure(measurements).caption
        assert finding.startswith(f"Of {peak} at the peak of training")
        assert caption.startswith(f"Together {peak};")
        assert ("before it loaded a model" in finding) == is_mentioned
        assert ("before it loaded a model" in caption) == is_mentioned


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_every_profile_is_complete(profile):
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings

    config = load_config(CONFIG, profile)
    settings = Settings(**config["training"])
    LoraSettings(**config["lora"])
    assert settings.steps * settings.batch_size <= config["data"]["train"], (
        "an example would be seen twice"
    )
    assert config["data"]["curve"] <= config["data"]["evaluation"]
    assert {
        "model",
        "dtype",
        "device",
        "quantisation",
        "curve_every",
        "generations",
        "max_new_tokens",
    } <= set(config)


def test_importing_the_experiment_loads_no_torch():
    code = (
        "import sys, lab.qlora.experiment; "
        "assert not {'torch', 'matplotlib', 'scipy.stats', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_missing_model_is_reported_in_one_line(tmp_path):
    argv = ["--config", str(CONFIG), "--profile", "cpu", "--out", str(tmp_path / "out")]
    log = tmp_path / "log"
    assert run_module("lab.qlora.experiment", argv, ROOT, log) == 2
    assert log.read_text() == (
        "error: input 'smollm2-135m' is not given (given: none); name it in the file of --inputs\n"
    )
    shutil.rmtree(tmp_path / "out")
