"""The gate of FEAT-019 passes honest runs, those that did not reproduce too, and sees every lie."""

import json
import os

import numpy as np
import pytest

from tests.gates import warm
from tests.gates.conftest import assert_judges_every_measurement, run_experiment
from tests.lab.synthesis import record

GATE = "synthesis/reproduction/test_reproduction.py"
MODULE = "lab.synthesis.reproduction.experiment"
CONFIG = "lab/synthesis/reproduction/experiment.yaml"

DRAW = "test_draw_is_that_of_the_started_entry"
RIGHT = "test_rows_are_compared_rightly"
ENOUGH = "test_rows_are_enough_and_no_array_is_compared_twice"
FINDINGS = "test_findings_say_what_did_not_reproduce_first"
SAMPLE = "test_a_sample_of_each_drawn_feature_is_what_it_stored"
CODE = "test_replays_ran_the_code_of_their_receipts"


@pytest.fixture(scope="module")
def inputs_file(tmp_path_factory):
    return record.write_record(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def judged(inputs_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("outputs") / "out"
    return run_experiment(MODULE, CONFIG, inputs_file, out), inputs_file


def edit_replay(out, feature, edit):
    path = out / f"artifacts/replays/{feature}.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    warm.forge(out)


def test_an_honest_run_passes(judged):
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_the_runner_verifies_it_kills_every_mutant_and_judges_every_measurement(judged, gates_dir):
    assert_judges_every_measurement(GATE, *judged, gates_dir)


def test_what_did_not_reproduce_passes_and_is_said_first(inputs_file, tmp_path):
    # 1. A record in which one number is another than the code computes.
    inputs = record.copy_record(inputs_file, tmp_path, "FEAT-005")
    out = tmp_path / "FEAT-005/artifacts/trials"
    for path in out.glob("*/steps.safetensors"):
        warm.change(path, lambda arrays: arrays["loss"].__setitem__(0, arrays["loss"][0] + 1))
    record.renew_receipt(inputs, "FEAT-005")

    # 2. The run says so, and the gate has nothing against it.
    (tmp_path / "run").mkdir()
    result = run_experiment(MODULE, CONFIG, inputs, tmp_path / "run/out")
    findings = json.loads((result / "result.json").read_text())["findings"]
    assert findings[0].startswith("1 row of ")
    assert findings[1].startswith("Not reproduced: FEAT-005, loss of the first")
    assert warm.failing(GATE, result, inputs) == set()


def test_a_stored_file_that_was_changed_behind_its_receipt(judged, inputs_file, tmp_path):
    inputs = record.copy_record(inputs_file, tmp_path, "FEAT-021")
    for path in (tmp_path / "FEAT-021").rglob("*.safetensors"):
        warm.change(path, lambda arrays: arrays.update(more=np.zeros(1)))
    assert {RIGHT, SAMPLE} <= warm.failing(GATE, judged[0], inputs)


def test_another_draw(judged, monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PHASES_STARTED", 64 * "e")
    inputs = tmp_path / "inputs.json"
    inputs.write_text(judged[1].read_text())
    assert DRAW in warm.failing(GATE, judged[0], inputs)


def test_code_that_is_not_the_receipts(judged, tmp_path):
    entries = json.loads(judged[1].read_text())
    entries["FEAT-021"]["code"] = entries["FEAT-900"]["code"]
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps(entries))
    assert DRAW in warm.failing(GATE, judged[0], inputs)


def hide_a_row(document):
    del document["rows"][-1]


def loosen(document):
    document["rows"][-1]["is_deterministic"] = False


def claim_equality(document):
    document["rows"][0]["difference"] = 0.5


def claim_other_code(document):
    document["code_sha256"] = 64 * "0"


def claim_failure(document):
    document["failure"] = "it was stopped after 600 s"


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (hide_a_row, RIGHT),
        (claim_equality, RIGHT),
        (loosen, "test_measurement[rows_promised]"),
        (claim_other_code, CODE),
        (claim_failure, ENOUGH),
    ],
)
def test_a_changed_replay(judged, mutant, edit, check):
    edit_replay(mutant, "FEAT-003", edit)
    assert check in warm.failing(GATE, mutant, judged[1])


def test_other_recomputed_arrays(judged, mutant):
    path = mutant / "artifacts/replays/FEAT-021.safetensors"
    warm.change(path, lambda arrays: arrays.update({"0": arrays["0"] + 1e-9}))
    warm.forge(mutant)
    assert RIGHT in warm.failing(GATE, mutant, judged[1])


def test_a_reason_for_a_feature_that_was_passed_over(judged, mutant):
    path = mutant / "artifacts/draw.json"
    path.write_text(path.read_text().replace("took 90 s", "took 91 s"))
    warm.forge(mutant)
    failing = warm.failing(GATE, mutant, judged[1])
    assert {"test_reasons_of_features_without_a_replay", FINDINGS} <= failing
