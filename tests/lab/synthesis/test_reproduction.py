"""The reproduction: its draw, its comparisons, and what it refuses, with both controls."""

import dataclasses
import json
import math
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lab.config import load_config
from lab.contract import Context, ContractError, Inputs
from lab.synthesis.reproduction import drawing, receipts
from lab.synthesis.reproduction.comparing import compare, difference
from lab.synthesis.reproduction.measured import Candidate, Outcome, Way
from lab.synthesis.reproduction.rebuilding import git_object
from lab.synthesis.reproduction.replaying import replay_feature
from tests.gates import warm
from tests.gates.conftest import ROOT
from tests.lab.synthesis import record

CONFIG = ROOT / "lab/synthesis/reproduction/experiment.yaml"
CURVE = "artifacts/runs/{}/curve.safetensors"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return record.write_record(tmp_path_factory.mktemp("record"))


def context(inputs, out):
    out.mkdir(parents=True, exist_ok=True)
    entries = json.loads(Path(inputs).read_text())
    config = load_config(CONFIG, "cpu")
    return Context(config, "cpu", 0, Inputs(entries), out, lambda *_: None)


def replayed(inputs, tmp_path, feature="FEAT-021", way=Way.REPLAY, started=64 * "0"):
    """Compute a feature of a record again."""
    ctx = context(inputs, tmp_path / "out")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    machine = receipts.this_machine()
    return replay_feature(ctx, Candidate(feature, way), started, machine, scratch)


# The draw


def test_every_feature_is_as_likely_as_any_other():
    features = [f"FEAT-{n:03}" for n in range(1, 21)]
    times = dict.fromkeys(features, 0)
    for n in range(2000):
        for feature in drawing.ordered(f"{n:064x}", features)[:3]:
            times[feature] += 1
    expected = 2000 * 3 / 20
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in times.values())


def test_order_of_the_inputs_does_not_matter():
    features = [f"FEAT-{n:03}" for n in range(1, 21)]
    assert drawing.ordered("ab", features) == drawing.ordered("ab", features[::-1])
    assert drawing.ordered("ab", features) != drawing.ordered("ac", features)


def test_by_hand_zeros_are_drawn_with_and_a_feature_without_replay_is_passed_over(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.delenv(drawing.VARIABLE, raising=False)
    draw = drawing.draw_features(context(inputs, tmp_path))
    assert (draw.started, draw.is_of_an_attempt) == (64 * "0", False)
    ways = {one.feature: one.way for one in draw.candidates}
    assert ways == {
        "FEAT-003": Way.WHOLE,
        "FEAT-005": Way.REPLAY,
        "FEAT-021": Way.REPLAY,
        "FEAT-900": None,
    }
    reasons = {one.feature: one.reason for one in draw.candidates}
    assert reasons["FEAT-900"] == "its commit has no replay, and the whole run took 90 s"
    assert {one.feature for one in draw.drawn} == {"FEAT-003", "FEAT-005", "FEAT-021"}


def test_an_attempt_draws_by_its_started_entry(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv(drawing.VARIABLE, 64 * "f")
    draw = drawing.draw_features(context(inputs, tmp_path))
    assert (draw.started, draw.is_of_an_attempt) == (64 * "f", True)


def without(entries, feature, *keys):
    for key in keys:
        del entries[feature][key]


REFUSED = {
    "no code": (lambda e: without(e, "FEAT-021", "code"), "the code of its commit is not given"),
    "another commit": (lambda e: e["FEAT-021"].update(commit=40 * "c"), "is of commit cccc"),
    "another code": (
        lambda e: e["FEAT-021"].update(code=e["FEAT-900"]["code"]),
        "so it was not run",
    ),
    "another receipt": (lambda e: e["FEAT-021"].update(receipt="sha256:00"), "the inputs name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_of_the_receipt_is_not_run(inputs, tmp_path, name):
    change, reason = REFUSED[name]
    entries = json.loads(inputs.read_text())
    change(entries)
    (tmp_path / "inputs.json").write_text(json.dumps(entries))
    candidate = drawing.examine(context(tmp_path / "inputs.json", tmp_path), "FEAT-021")
    assert candidate.way is None
    assert reason in candidate.reason


def test_one_changed_letter_of_the_code_is_refused(inputs, tmp_path):
    entries = json.loads(inputs.read_text())
    code = Path(shutil.copytree(entries["FEAT-021"]["code"], tmp_path / "code"))
    entries["FEAT-021"]["code"] = str(code)
    copy = tmp_path / "inputs.json"
    copy.write_text(json.dumps(entries))
    assert drawing.examine(context(copy, tmp_path), "FEAT-021").way is Way.REPLAY
    path = code / "lab/induction_heads/training.py"
    path.write_text(path.read_text().replace("0.98", "0.99"))
    assert "so it was not run" in drawing.examine(context(copy, tmp_path), "FEAT-021").reason


def test_a_tracked_input_that_was_changed_is_refused(inputs, tmp_path):
    entries = json.loads(inputs.read_text())
    code = Path(shutil.copytree(entries["FEAT-003"]["code"], tmp_path / "code"))
    entries["FEAT-003"]["code"] = str(code)
    copy = tmp_path / "inputs.json"
    copy.write_text(json.dumps(entries))
    assert drawing.examine(context(copy, tmp_path), "FEAT-003").way is Way.WHOLE
    with (code / "docs/QUESTIONS.md").open("a") as file:
        file.write("more\n")
    reason = drawing.examine(context(copy, tmp_path), "FEAT-003").reason
    assert "its input questions is not the git object" in reason


@pytest.mark.parametrize("path", ["docs", "README.md", "lab/synthesis", "tests/lab"])
def test_git_names_a_folder_as_we_do(path):
    command = ["git", "-C", str(ROOT), "rev-parse", f"HEAD:{path}"]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "HEAD", path], capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        assert git_object(Path(folder) / path) == expected


def test_another_model_than_that_of_the_receipt_is_refused(inputs, tmp_path):
    entries = json.loads(inputs.read_text())
    entries[record.MODEL]["path"] = entries["FEAT-021"]["path"]
    (Path(entries["FEAT-021"]["path"]) / "model.safetensors").write_bytes(b"another")
    copy = tmp_path / "inputs.json"
    copy.write_text(json.dumps(entries))
    reason = drawing.examine(context(copy, tmp_path), "FEAT-005").reason
    (Path(entries["FEAT-021"]["path"]) / "model.safetensors").unlink()
    assert "is another one: model.safetensors" in reason


def test_nothing_to_draw_from_is_an_error(tmp_path):
    (tmp_path / "inputs.json").write_text("{}")
    with pytest.raises(ContractError, match="no feature can be computed again"):
        drawing.draw_features(context(tmp_path / "inputs.json", tmp_path))


# Replays


def test_what_was_stored_is_reproduced_bit_by_bit(inputs, tmp_path):
    one = replayed(inputs, tmp_path)
    assert one.failure == ""
    assert one.changes == ()
    assert {row.outcome for row in one.rows} == {Outcome.EQUAL}
    assert all(row.is_promised for row in one.rows)
    assert one.is_reproduced


def test_one_changed_number_fails_exactly_its_row(inputs, tmp_path):
    (tmp_path / "true").mkdir()
    true = replayed(inputs, tmp_path / "true")
    row = next(row for row in true.rows if row.part == ["second"])
    copy = record.copy_record(inputs, tmp_path, "FEAT-021")
    path = Path(json.loads(copy.read_text())["FEAT-021"]["path"]) / row.file

    def change(arrays):
        arrays["second"][1] = np.nextafter(arrays["second"][1], 10)

    warm.change(path, change)
    one = replayed(copy, tmp_path)
    different = [row.part for row in one.rows if row.outcome is Outcome.DIFFERENT]
    assert different == [["second"]]
    assert not one.is_reproduced


def test_a_whole_run_is_compared_in_every_file(inputs, tmp_path):
    one = replayed(inputs, tmp_path, "FEAT-003", Way.WHOLE)
    assert one.is_reproduced, one.failure
    files = {row.file for row in one.rows}
    stored = json.loads(
        (Path(json.loads(inputs.read_text())["FEAT-003"]["path"]) / "receipt.json").read_text()
    )
    assert files == {item["name"] for item in stored["subject"]} - {"report.md"}


def test_a_replay_that_fails_is_said_and_is_no_error(inputs, tmp_path):
    copy = record.copy_record(inputs, tmp_path, "FEAT-021")
    out = Path(json.loads(copy.read_text())["FEAT-021"]["path"])
    receipt = json.loads((out / "receipt.json").read_text())
    receipt["predicate"]["buildDefinition"]["externalParameters"]["profile"] = "none"
    entries = json.loads(copy.read_text())
    code = Path(entries["FEAT-021"]["code"])
    entries["FEAT-021"] = record.write_receipt(out, receipt, code, record.COMMIT)
    copy.write_text(json.dumps(entries))
    one = replayed(copy, tmp_path)
    assert "exit code 1" in one.failure
    assert "no profile 'none'" in one.failure
    assert (one.rows, one.is_reproduced) == ((), False)


def test_on_another_machine_bits_are_not_promised(inputs):
    out = Path(json.loads(inputs.read_text())["FEAT-021"]["path"])
    receipt = receipts.read_receipt(out, json.loads(inputs.read_text())["FEAT-021"]["receipt"])
    machine = receipts.this_machine()
    threads = machine["threads"]
    assert receipts.changes(receipt, threads, machine) == ()
    other = machine | {"cpus": 96, "packages": machine["packages"] | {"torch": "1.0"}}
    expected = (f"cpus {machine['cpus']}, now 96", f"torch {machine['packages']['torch']}, now 1.0")
    assert receipts.changes(receipt, threads, other) == expected
    assert receipts.changes(receipt, threads + 1, machine) == (
        f"threads {threads + 1}, now {threads}",
    )


# Comparisons


@pytest.mark.parametrize(
    ("stored", "again", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([1.0], [4.0], 0.75),  # a factor of 4
        ([4.0], [1.0], 0.75),
        ([0.0], [1e-30], 1.0),
        ([1.0], [math.nan], 1.0),
        ([1.0], [1.0, 1.0], 1.0),
        ([0.0], [-0.0], 1.0),  # other bits
    ],
)
def test_difference_of_floats(stored, again, expected):
    assert difference(np.array(stored), np.array(again)) == pytest.approx(expected)


def test_difference_of_bytes_is_the_share_that_differs():
    one = np.frombuffer(b"abcd", dtype=np.uint8)
    assert difference(one, np.frombuffer(b"abce", dtype=np.uint8)) == 0.25


@pytest.mark.parametrize(
    ("is_deterministic", "is_same_machine", "value", "expected"),
    [
        (True, True, 1.0, Outcome.EQUAL),
        (True, True, 1.0 + 1e-12, Outcome.DIFFERENT),
        (True, False, 1.0 + 1e-12, Outcome.WITHIN),
        (False, True, 1.005, Outcome.WITHIN),
        (False, True, 1.05, Outcome.DIFFERENT),
        (True, False, 1.05, Outcome.DIFFERENT),
    ],
)
def test_outcome_follows_from_the_promise(
    tmp_path, is_deterministic, is_same_machine, value, expected
):
    (tmp_path / "a.json").write_text("[1.0]")
    described = {
        "quantity": "a number",
        "file": "a.json",
        "part": [],
        "indices": None,
        "is_deterministic": is_deterministic,
        "tolerance": 0.01,
        "reason": "why",
    }
    described["part"] = [0]
    row = compare(described, np.array([value]), tmp_path, is_same_machine=is_same_machine)
    assert row.outcome is expected
    assert dataclasses.asdict(row)["is_promised"] == (is_deterministic and is_same_machine)
