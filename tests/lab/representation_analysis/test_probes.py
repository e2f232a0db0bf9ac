"""The probes on tiny models: what is read, what is stored, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lab.instruments import models
from lab.representation_analysis import probe_numbers, probe_report
from lab.representation_analysis.probe_figures import probe_figures
from lab.representation_analysis.probe_measured import (
    CLASSES,
    CONTROL,
    PART,
    RANDOM,
    STRING,
    TASK,
    ProbePlan,
)
from lab.representation_analysis.probes import observe_probes, store_probes, streams

PLAN = ProbePlan(
    train=40,
    validation=12,
    test=24,
    tokens=48,
    signature=40,
    per_package=4,
    ridge=0.03,
    random_depths=2,
)


@pytest.fixture(scope="module")
def observed():
    notes = []
    control = models.tiny(1).model
    observations = observe_probes(
        models.tiny(0), control, PLAN, 0, lambda done, total, _: notes.append((done, total))
    )
    assert notes[-1] == (4, 4)
    return observations


def test_streams_are_those_of_the_model(tiny):
    ids = np.random.default_rng(0).integers(3, 200, (25, 12))
    found = streams(tiny.model, ids, 3)
    with torch.no_grad():
        hidden = tiny.model(torch.from_numpy(ids), output_hidden_states=True).hidden_states
        last = tiny.model.model.norm(torch.from_numpy(found[2]))
    np.testing.assert_allclose(found[0], hidden[0][:, 1:], atol=1e-6)
    np.testing.assert_allclose(found[1], hidden[1][:, 1:], atol=1e-5)
    np.testing.assert_allclose(last, hidden[2][:, 1:], atol=1e-5)
    np.testing.assert_allclose(streams(tiny.model, ids, 2), found[:2], atol=1e-6)


def test_every_depth_has_a_class_for_each_token_that_was_held_out(observed):
    for name, classes in CLASSES.items():
        predicted = observed.predicted[name]
        shapes = {reading: array.shape for reading, array in predicted.items()}
        assert shapes == {TASK: (3, 36, 47), CONTROL: (3, 36, 47), RANDOM: (2, 36, 47)}
        assert max(array.max() for array in predicted.values()) < len(classes)


def test_a_probe_that_is_always_right_has_accuracy_1_and_one_that_is_not_has_less(observed):
    labels = observed.labels[PART][PLAN.train :, 1:]
    perfect = {**observed.predicted[PART], TASK: np.stack([labels * 0, labels, labels])}
    known = replace(observed, predicted={**observed.predicted, PART: perfect})
    measured = probe_numbers.probe_measurements(known)
    assert measured["probe_part_accuracy"].value == 1
    assert measured["probe_part_accuracy"].stderr == 0
    assert measured["probe_part_best_layer"].value == 1
    assert measured["probe_part_embedding"].value == 1 / 5
    assert measured["probe_string_accuracy"].number < 1


def test_the_depth_is_chosen_by_validation_and_not_by_the_test(observed):
    right = observed.labels[PART][PLAN.train :, 1:]
    wrong = (right + 1) % 5
    held = PLAN.validation
    first = np.concatenate([right[:held], wrong[held:]])
    second = np.concatenate([wrong[:held], right[held:]])
    predicted = {**observed.predicted[PART], TASK: np.stack([wrong, first, second])}
    lucky = replace(observed, predicted={**observed.predicted, PART: predicted})
    measured = probe_numbers.probe_measurements(lucky)
    assert measured["probe_part_best_layer"].value == 1
    assert measured["probe_part_accuracy"].value == 0


def test_random_models_read_less_than_what_is_written(observed):
    """Neither model was trained, so training cannot have added anything to speak of."""
    measured = probe_numbers.probe_measurements(observed)
    for name in CLASSES:
        assert abs(measured[f"probe_{name}_over_random_weights"].number) < 0.1
    assert probe_report.probe_findings(measured)[3].endswith(
        "that training adds something is not clear of both."
    )


def test_differences_are_differences_and_have_errors_over_packages(observed):
    measured = probe_numbers.probe_measurements(observed)
    packages = {one.package for one in observed.functions if one.split == "test"}
    assert 1 < len(packages) < PLAN.test
    for name in CLASSES:
        best = measured[f"probe_{name}_accuracy"].number
        for other in ("identity", "position", "embedding", "random_weights"):
            difference = measured[f"probe_{name}_over_{other}"]
            assert difference.value == pytest.approx(
                best - measured[f"probe_{name}_{other}"].number
            )
            assert difference.n == len(packages)
        assert measured[f"probe_{name}_selectivity"].value == pytest.approx(
            best - measured[f"probe_{name}_control"].number
        )


def test_findings_change_with_the_numbers(observed):
    measured = dict(probe_numbers.probe_measurements(observed))
    for name in CLASSES:
        for key in ("over_identity", "over_position", "selectivity", "over_random_weights"):
            name_of = f"probe_{name}_{key}"
            measured[name_of] = replace(measured[name_of], value=0.3, stderr=0.01)
    part, string, control, random = probe_report.probe_findings(measured)
    assert "the stream says more than the token and its position" in part
    assert "the stream says more than the token and its position" in string
    assert "knowing which token it is does not explain" in control
    assert "the rest is owed to training" in random
    measured["probe_part_over_position"] = replace(
        measured["probe_part_over_position"], value=0.015
    )
    assert "the probe is not clearly above both tables" in probe_report.probe_findings(measured)[0]


def test_tables_and_figures_show_every_depth_and_class(observed):
    depth, classes = probe_report.probe_tables(observed)
    assert [row[0] for row in depth.rows] == [0, 1, 2]
    assert depth.rows[2][4] == "not run"
    assert [row[:2] for row in classes.rows] == [
        (name, label) for name, labels in CLASSES.items() for label in labels
    ]
    figures = probe_figures(observed, probe_numbers.probe_measurements(observed))
    assert [figure.name for figure in figures] == [f"probe_{PART}", f"probe_{STRING}"]
    assert [len(series.y) for series in figures[0].series] == [3, 3, 2, 3, 3]


def test_what_is_stored_is_what_was_observed(observed, tmp_path):
    store_probes(tmp_path, observed)
    functions = json.loads((tmp_path / "probe_functions.json").read_text())
    assert functions[0] == vars(observed.functions[0])
    tokens = load_file(tmp_path / "probe_tokens.safetensors")
    predicted = load_file(tmp_path / "probe_predictions.safetensors")
    np.testing.assert_array_equal(tokens["ids"], observed.ids)
    np.testing.assert_array_equal(tokens["part.control"], observed.control[PART])
    np.testing.assert_array_equal(predicted["string.random"], observed.predicted[STRING][RANDOM])
