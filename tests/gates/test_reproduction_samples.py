"""The sample that FEAT-019's gate recomputes of a drawn feature, whatever the feature is."""

import json

import numpy as np
import pytest

from gates.shared import stored
from gates.synthesis.reproduction import compared, earlier, sampled
from lab.instruments import models
from tests.forks import run_module
from tests.lab.synthesis import record

FEATURE = "FEAT-100"
TOPICS = sorted(module.split(".")[1] for module in sampled.SAMPLES)


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    models.save(models.tiny(0), folder / record.MODEL)
    return record.write_code(folder / "code")


@pytest.fixture
def feature(request, code, tmp_path, monkeypatch):
    """Run a topic on the tiny model, and make it an input of the gate."""
    topic = request.param
    entries = {record.MODEL: {"kind": "input", "path": str(code.parent / record.MODEL)}}
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps(entries))
    profile = "smoke" if topic == "induction_heads" else "cpu"
    argv = ["--config", f"lab/{topic}/experiment.yaml", "--profile", profile]
    argv += ["--inputs", str(inputs), "--out", str(tmp_path / FEATURE)]
    log = tmp_path / "run.log"
    assert run_module(f"lab.{topic}.experiment", argv, code, log) == 0, log.read_text()
    receipt = record.receipt_of(
        tmp_path / FEATURE, record.command(topic, profile), profile, 90.0, code=code
    )
    entries[FEATURE] = record.write_receipt(tmp_path / FEATURE, receipt, code, record.COMMIT)
    inputs.write_text(json.dumps(entries))
    monkeypatch.setenv("PHASES_INPUTS", str(inputs))
    monkeypatch.setenv("PHASES_OUT", str(tmp_path))
    forget()
    yield FEATURE
    forget()


def forget():
    stored._COMPUTED.clear()
    earlier.receipt.cache_clear()
    compared.assert_unchanged.cache_clear()


@pytest.mark.parametrize("feature", TOPICS, indirect=True)
def test_a_true_feature_agrees_and_another_does_not(feature, monkeypatch):
    for nonce in ("01", "02"):
        monkeypatch.setenv("PHASES_NONCE", nonce)
        forget()
        sampled.assert_agrees(feature)

    # What was stored is another number.
    true_pair = sampled._pair

    def lie(what, stored_values, again):
        return true_pair(what, np.asarray(stored_values) * 1.1, again)

    monkeypatch.setattr(sampled, "_pair", lie)
    forget()
    with pytest.raises(AssertionError, match="differ in"):
        sampled.assert_agrees(feature)
