"""FEAT-010's gate on the tiny model: it passes an honest run and no changed one."""

import copy
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gates.attention_extraction import arrays
from gates.attention_extraction.test_attention_extraction import NAMES
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import run_experiment

GATE = "attention_extraction/test_attention_extraction.py"


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """Return the outputs of a run at the planned size on the tiny model, and its file of inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("attention_extraction")
    loaded = models.tiny(0)
    for layer in loaded.model.model.layers:
        # A random model's rows are all but even: nothing would change them.
        layer.self_attn.q_proj.weight.data *= 10
        layer.self_attn.k_proj.weight.data *= 10
    models.save(loaded, folder / "model")
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.attention_extraction.experiment"
    config = "lab/attention_extraction/experiment.yaml"
    return run_experiment(module, config, inputs, folder / "out"), inputs


def change(out, file, name, function):
    path = out / "artifacts" / file
    stored = load_file(path)
    stored[name] = function(stored[name]).astype(stored[name].dtype)
    save_file(stored, path)
    warm.forge(out)


def test_a_true_run_passes(judged):
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_nothing_at_all_fails_every_number(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {f"test_measurement_follows_from_what_was_stored[{name}]" for name in NAMES} < names


def smooth(pattern):
    """Return other weights that are as causal and sum to 1 as well."""
    total = pattern.shape[-1]
    even = np.tril(np.ones((total, total))) / np.arange(1, total + 1)[:, None]
    return 0.9 * pattern + 0.1 * even


def longer_first_value(values):
    """Return values [L, T, heads, D] of which the first token's is five times as long."""
    values[:, 0] *= 5
    return values


LOGITS = "test_stored_logits_are_those_of_the_model"
VECTORS = "test_stored_vectors_are_those_of_the_model"
FITS = "test_what_was_recorded_fits_together"
EAGER = "test_recorded_weights_are_those_of_eager_attention"
RECORDS = (  # file, array, what is done to it, the check that must notice
    ("model", "pattern", smooth, "test_stored_pattern_is_that_of_the_model"),
    ("model", "padded", lambda p: p * 0.9, "test_stored_pattern_is_that_of_the_model"),
    ("model", "logits_recorded", lambda x: x + 0.1, f"{LOGITS}[logits_recorded]"),
    ("model", "logits_plain", lambda x: x + 0.1, f"{LOGITS}[logits_plain]"),
    ("model", "z", lambda z: z * 1.01, f"{FITS}[z_error]"),
    ("model", "z", lambda z: z * 1.01, f"{VECTORS}[z]"),
    ("model", "v", longer_first_value, f"{VECTORS}[v]"),
    # The softmax does not notice what is added to all keys of a head.
    ("model", "k", lambda k: k + 1, f"{VECTORS}[k]"),
    ("model", "q", lambda q: q * 1.01, f"{VECTORS}[q]"),
    ("model", "q", lambda q: q * 1.01, f"{FITS}[rotation_error]"),
    ("model", "entropy", lambda e: e + 0.01, "test_statistics_without_rows_are_those_of_the_rows"),
    ("model", "rot_k", lambda k: k[:, :, ::-1], f"{EAGER}[interleaved_error]"),
    ("parity", "float32.recorded", smooth, "test_stored_pattern_is_that_of_the_model"),
    ("parity", "float32.reference", smooth, "test_stored_pattern_is_that_of_the_model"),
    ("parity", "float64.reference", smooth, "test_stored_pattern_is_that_of_the_model"),
    ("parity", "float64.recorded", lambda p: p + 1e-6, "test_the_difference_is_rounding"),
    ("parity", "stretch.recorded", smooth, "test_positions_do_what_was_measured"),
    ("parity", "shift.reference", smooth, "test_positions_do_what_was_measured"),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record[0]}.{record[1]}")
def test_a_record_that_the_model_does_not_give_is_seen(judged, mutant, record):
    file, name, function, check = record
    change(mutant, f"{file}.safetensors", name, function)
    assert warm.fails(check, GATE, mutant, judged[1])


def test_weights_that_are_those_of_eager_attention_to_the_last_bit_are_seen(judged, mutant):
    arrays = load_file(mutant / "artifacts/parity.safetensors")
    for kind in ("float32", "float64", "bfloat16", "nf4", "adapter"):
        arrays[f"{kind}.recorded"] = arrays[f"{kind}.reference"]
    save_file(arrays, mutant / "artifacts/parity.safetensors")
    warm.forge(mutant)
    assert warm.fails("test_the_difference_is_rounding", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("rounding alone", "MORE THAN ROUNDING"),
        ("stayed the same", "stayed close"),
        ("more alike", "more different"),
        ("etched", "eached"),  # fetched or FETCHED
    ],
)
def test_another_verdict_is_seen(judged, mutant, word, other):
    path = mutant / "result.json"
    text = path.read_text()
    assert word in text.casefold() or word in text
    path.write_text(re.sub(word, other, text, flags=re.IGNORECASE))
    assert warm.fails("test_verdicts_follow_from_the_numbers", GATE, mutant, judged[1])


def test_families_that_attend_evenly_are_seen(judged, mutant):
    for family in arrays.FAMILIES:
        path = f"families/{family}.safetensors"
        for kind in ("float32.recorded", "float32.reference"):
            change(mutant, path, kind, lambda p: smooth(0 * p) * 10)
    assert warm.fails("test_families_attend_to_something", GATE, mutant, judged[1])


@pytest.mark.parametrize("sides", [["recorded"], ["reference"], ["recorded", "reference"]])
def test_wrong_patterns_of_all_forms_are_seen(judged, mutant, sides):
    for form in ("bfloat16", "nf4", "adapter"):
        for side in sides:
            change(mutant, "parity.safetensors", f"{form}.{side}", lambda p: np.roll(p, 1, axis=1))
    assert warm.fails("test_other_form_is_recorded_as_it_computes", GATE, mutant, judged[1])


@pytest.mark.parametrize("side", ["recorded", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wrong_patterns_of_the_families_are_seen(judged, mutant, dtype, side):
    for family in arrays.FAMILIES:
        change(mutant, f"families/{family}.safetensors", f"{dtype}.{side}", smooth)
    assert warm.fails("test_families_are_recorded_as_they_compute", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen2", {"model_type": "llama"}),
        ("mistral", {"sliding_window": 4096}),
        ("gemma2", {"attn_logit_softcapping": 50.0}),
    ],
)
def test_a_family_that_is_another_one_is_seen(judged, mutant, family, settings):
    path = mutant / f"artifacts/families/{family}/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assert warm.fails("test_families_are_what_they_are_called", GATE, mutant, judged[1])


def test_a_guard_that_did_not_hold_is_seen(judged, mutant):
    path = mutant / "artifacts/guards.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"hooks_left": 1}))
    check = "test_the_extractor_refuses_and_leaves_nothing_behind"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["parity", "groups"])
def test_a_figure_of_other_numbers_is_seen(judged, mutant, name):
    path = mutant / f"figures/{name}.json"
    figure = json.loads(path.read_text())
    figure["series"][-1]["y"][1] = figure["series"][-1]["y"][1] * 1.1 + 1e-3
    path.write_text(json.dumps(figure))
    assert warm.fails(f"test_figure_shows_the_numbers[{name}]", GATE, mutant, judged[1])


def test_a_map_of_other_weights_is_seen(judged, mutant):
    path = mutant / "figures/orders.json"
    figure = json.loads(path.read_text())
    figure["panels"][2]["values"][9][4] += 0.01
    path.write_text(json.dumps(figure))
    assert warm.fails("test_heatmap_shows_the_patterns", GATE, mutant, judged[1])


def test_a_changed_table_is_seen(judged, mutant):
    path = mutant / "result.json"
    document = json.loads(path.read_text())
    document["tables"][1]["rows"][6][1] *= 1.01
    path.write_text(json.dumps(document))
    assert warm.fails("test_tables_follow_from_what_was_stored", GATE, mutant, judged[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_changed_alone_is_seen(name, judged, monkeypatch, tmp_path):
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    monkeypatch.setenv("PHASES_OUT", str(judged[0]))
    expected = arrays.recomputed()["numbers"][name]
    true = json.loads((judged[0] / "result.json").read_text())
    value = true["measurements"][name]["value"]
    monkeypatch.setenv("PHASES_OUT", str(tmp_path))
    others = ["L9H9"] if isinstance(value, str) else [not value]
    if not isinstance(value, (str, bool)):
        # 5 % of a difference of 1e-15 is less than any comparison sees.
        others = [10 * value + 1] if 0 < abs(value) < 1e-6 else [value * 1.05 or 0.05]
    for other in others:
        changed = copy.deepcopy(true)
        changed["measurements"][name]["value"] = other
        (tmp_path / "result.json").write_text(json.dumps(changed))
        with pytest.raises(AssertionError):
            outputs.assert_agrees(name, expected, rtol=0.02 if name.endswith("_error") else 1e-5)
