"""What is asked next follows from the numbers: claims, repeats, bits, costs, order."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from lab.instruments.memory_model import TrainingSetup, memory
from lab.instruments.model_shape import ModelShape
from lab.instruments.throughput_model import step_seconds
from lab.synthesis.next_questions import candidates, wording
from lab.synthesis.next_questions.measured import Claim
from tests.lab.hardware.machine import small_machine
from tests.lab.synthesis import next_inputs

ROOT = Path(__file__).resolve().parents[3]
MODULE = "lab.synthesis.next_questions.experiment"
CONFIG = "lab/synthesis/next_questions/experiment.yaml"


def run(folder: Path, **inputs) -> Path:
    """Run the experiment on the test's inputs, as a user does; return its outputs."""
    inputs_file = next_inputs.write_inputs(folder, **inputs)
    argv = ["--config", CONFIG, "--profile", "cpu", "--inputs", str(inputs_file)]
    command = [sys.executable, "-m", MODULE, *argv, "--out", str(folder / "out")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "out"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = run(tmp_path_factory.mktemp("next"))
    listed = json.loads((out / "candidates.json").read_text())
    return {(row["feature"], row["id"]): row for row in listed}


@pytest.mark.parametrize(("half", "deviation"), [(1.0, 0.5), (0.1, 0.3), (0.01, 0.3), (5.0, 0.001)])
def test_as_few_repeats_as_decide(half, deviation):
    k = candidates.fewest_repeats(half, deviation, 10_000)

    def width(count):
        return stats.t.ppf(0.975, count - 1) * deviation / math.sqrt(count)

    assert width(k) < half
    assert k == 2 or width(k - 1) >= half


def test_what_more_repeats_do_not_decide_is_out_of_reach():
    assert candidates.fewest_repeats(0.0, 1.0, 10_000) is None
    assert candidates.fewest_repeats(0.001, 1.0, 100) is None


@pytest.mark.parametrize(
    ("claim", "value", "expected"),
    [
        (Claim("x", "<", 1), 0.5, Claim("x", "<", 1)),
        (Claim("x", "<", 1), 1.5, Claim("x", ">=", 1)),
        (Claim("x", ">=", 1), 0.5, Claim("x", "<", 1)),
        (Claim("x", ">", 1), 1.5, Claim("x", ">", 1)),
        (Claim("x", "within", [0, 1]), 0.5, Claim("x", "within", [0, 1])),
        (Claim("x", "within", [0, 1]), -0.5, Claim("x", "<", 0)),
        (Claim("x", "within", [0, 1]), 1.5, Claim("x", ">", 1)),
    ],
)
def test_the_side_on_which_the_number_is_gets_predicted(claim, value, expected):
    assert candidates.side_of(claim, value) == expected


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (Claim("x", "<", 2.0), stats.t.cdf((2 - 1.5) / 0.4, 4)),
        (Claim("x", ">=", 2.0), stats.t.sf((2 - 1.5) / 0.4, 4)),
        (
            Claim("x", "within", [1.0, 2.0]),
            stats.t.cdf((2 - 1.5) / 0.4, 4) - stats.t.cdf((1 - 1.5) / 0.4, 4),
        ),
    ],
)
def test_the_chance_of_a_claim_is_students(claim, expected):
    assert candidates.probability(claim, 1.5, 0.4, 4) == pytest.approx(expected)


def test_bits_of_a_yes_or_no():
    assert candidates.entropy(0.5) == 1
    assert candidates.entropy(0) == candidates.entropy(1) == 0
    assert candidates.entropy(0.1) == pytest.approx(stats.entropy([0.1, 0.9], base=2))


def test_each_fate_has_its_experiment(rows):
    kinds = {key: row["kind"] for key, row in rows.items()}
    assert kinds == {
        ("FEAT-006", "winner"): "missed",
        ("FEAT-006", "spikes"): "missed",
        ("FEAT-006", "leads"): "open",
        ("FEAT-006", "no-move"): "open",
        ("FEAT-006", "last"): "unrepeated",
        ("FEAT-006", "eval"): "open",
        ("FEAT-006", "far"): "open",
        ("FEAT-006", "format_share"): "wide",
        ("FEAT-011", "sink"): "missed",
        ("FEAT-011", "entropy"): "missed",
        ("FEAT-011", "order"): "missed",
        ("FEAT-011", "copy"): "open",
        ("FEAT-011", "sink_rate"): "wide",
        ("FEAT-017", "time"): "unrepeated",
        ("FEAT-017", "gemm"): "wide",
    }


def test_a_miss_is_asked_again_with_a_changed_setting(rows):
    sink = rows["FEAT-011", "sink"]
    assert sink["expected"] == {"measurement": "sink_rate", "comparator": "<", "value": 60}
    assert sink["change"] == {"word": "sequences", "before": 8, "after": 16}
    assert sink["cost"]["seconds"] == 2 * 200
    assert sink["question"].endswith("also with 16 sequences in place of 8?")


def test_a_margin_asks_whether_the_best_leads_at_all(rows):
    leads = rows["FEAT-006", "leads"]
    assert leads["expected"] == {"measurement": "best_rate_lead", "comparator": ">", "value": 0}
    assert leads["repeats"]["word"] == "seeds"


def test_trainings_cost_what_the_models_of_the_hardware_decision_say(rows):
    machine = small_machine()
    shape = ModelShape.from_config(next_inputs.LLAMA)
    seconds, peaks = 0.0, []
    for trainings, rank in ((4, 16), (3, 64), (1, 16)):
        setup = TrainingSetup("lora", batch=8, sequence=26, rank=rank)
        step = step_seconds(shape, setup, machine.rates, machine.time_fit)
        seconds += trainings * 20 * step
        peaks.append(memory(shape, setup, machine.memory_fit).total)
    seeds = rows["FEAT-006", "leads"]["repeats"]["needed"]
    cost = rows["FEAT-006", "leads"]["cost"]
    assert cost["seconds"] == pytest.approx(seeds * seconds)
    assert cost["bytes"] == pytest.approx(max(peaks))
    # twice the examples, three seeds
    assert rows["FEAT-006", "winner"]["cost"]["seconds"] == pytest.approx(2 * 3 * seconds)


def test_without_the_models_the_receipts_say_what_it_costs(tmp_path):
    out = run(tmp_path, without=("FEAT-017",))
    for row in json.loads((out / "candidates.json").read_text()):
        assert row["cost"] is None or row["cost"]["source"] == f"receipt of {row['feature']}"


def test_most_told_per_hour_comes_first_and_what_is_out_of_reach_last(rows):
    listed = list(rows.values())
    rates = [row["bits_per_hour"] or 0 for row in listed]
    assert rates == sorted(rates, reverse=True)
    assert [row["id"] for row in listed if row["cost"] is None] == ["far"]
    assert listed[-1]["id"] == "far"


def test_the_best_is_a_feature_that_a_plan_takes(tmp_path):
    from phases.plan.schema import Feature

    out = run(tmp_path)
    feature = Feature.model_validate_json((out / "plan_entry.json").read_text())
    assert feature.id == "FEAT-018"
    assert feature.predictions[0].measurement == "last_loss"


def test_nothing_left_to_ask_is_said(tmp_path):
    out = run(tmp_path, without=tuple(next_inputs.FEATURES))
    result = json.loads((out / "result.json").read_text())
    assert result["measurements"]["best"]["value"] is None
    assert json.loads((out / "plan_entry.json").read_text()) == {}
    assert "0 experiments follow" in " ".join(result["findings"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FEAT-006/receipt.json", "give the outputs of a verified run"),
        ("FEAT-017/artifacts/configs/base.json", "give its outputs with artifacts/"),
    ],
)
def test_a_folder_that_lacks_a_file_is_named(tmp_path, name, hint):
    inputs_file = next_inputs.write_inputs(tmp_path)
    (tmp_path / name).unlink()
    argv = ["--config", CONFIG, "--profile", "cpu", "--inputs", str(inputs_file)]
    command = [sys.executable, "-m", MODULE, *argv, "--out", str(tmp_path / "out")]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {name[:8]}: ")
    assert hint in process.stderr


@pytest.mark.parametrize(
    ("hours", "text"), [(0.01, "36 s"), (0.1, "6.0 min"), (1.5, "90 min"), (30.0, "30 h")]
)
def test_times_are_in_the_unit_that_reads_best(hours, text):
    assert wording.duration(hours) == text
