"""FEAT-015's checks of the probes on a real run of a tiny model: they pass, and see every lie.

A lie is told as an experiment would tell it: what was measured is altered, and all that follows is
made anew by the lab's own code, digests included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gates.representation_analysis import probe_checks, probe_numbers
from lab.contract import Context, Experiment, Inputs, Outcome, conduct
from lab.instruments import models, probing
from lab.representation_analysis import probe_numbers as lab_numbers
from lab.representation_analysis.probe_figures import probe_figures
from lab.representation_analysis.probe_measured import (
    CLASSES,
    CONTROL,
    PART,
    RANDOM,
    SPLITS,
    STRING,
    TASK,
    TEST,
    ProbeObservations,
    ProbePlan,
)
from lab.representation_analysis.probe_report import probe_findings, probe_tables
from lab.representation_analysis.probes import (
    observe_probes,
    predictions,
    store_probes,
    streams,
)
from tests.gates import warm

EXPERIMENT = Experiment("probes", "a question", "a hypothesis", "a method", headline=())
CLASSES_CHECK = "test_probe_classes_are_those_of_the_model"
TOKENS_CHECK = "test_probe_tokens_and_labels_are_those_of_the_functions"
FUNCTIONS_CHECK = "test_probe_functions_are_those_that_the_seed_draws"


@dataclass(frozen=True)
class Case:
    """An honest run: its observations and outputs, and the gate's file with the probes' checks."""

    loaded: models.Loaded
    untrained: Any
    observations: ProbeObservations
    config: dict[str, Any]
    gate: str
    inputs: Path
    out: Path

    def failing(self, out: Path) -> set[str]:
        """Return which checks fail on outputs, those marked integrity left out."""
        return warm.failing(self.gate, out, self.inputs)

    def told(
        self, out: Path, alter: Callable[[ProbeObservations], ProbeObservations] | None = None
    ) -> Path:
        """Write the outputs of altered observations, as the experiment writes them."""
        observations = self.observations if alter is None else alter(self.observations)

        def run(ctx: Context) -> Outcome:
            (ctx.out / "artifacts").mkdir()
            store_probes(ctx.out / "artifacts", observations)
            measured = lab_numbers.probe_measurements(observations)
            return Outcome(
                measured,
                tables=probe_tables(observations),
                findings=probe_findings(measured),
                figures=probe_figures(observations, measured),
            )

        out.mkdir(parents=True)
        conduct(EXPERIMENT, run, Context(self.config, "cpu", 0, Inputs(), out, lambda *_: None))
        return out

    def refitted(self, observations: ProbeObservations) -> ProbeObservations:
        """Return observations with the probes of the task fitted on their own labels."""
        vectors = streams(self.loaded.model, observations.ids, 3)
        fitted = predictions(vectors, {TASK: observations.labels}, observations.plan)
        return with_predictions(observations, TASK, {name: fitted[name][TASK] for name in CLASSES})


def with_predictions(
    observations: ProbeObservations, reading: str, classes: dict[str, np.ndarray]
) -> ProbeObservations:
    """Return observations with other predictions of one reading."""
    predicted = {
        name: {**own, reading: classes[name]} for name, own in observations.predicted.items()
    }
    return replace(observations, predicted=predicted)


def untrained(model: Any, seed: int) -> Any:
    """Return a model of the same architecture with the random weights of a seed."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(model.config, attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return an honest run at the planned size."""
    folder = tmp_path_factory.mktemp("probes")
    gate = folder / "test_probes_alone.py"
    gate.write_text("from gates.representation_analysis.probe_checks import *  # noqa: F403\n")
    loaded = models.tiny(7)  # of seed 0 are the random weights
    models.save(loaded, folder / "model")
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps({"smollm2-135m": {"path": str(folder / "model")}}))
    config = {"model": "smollm2-135m", "dtype": "float32", "probes": dict(probe_checks.PLANNED)}
    control = untrained(loaded.model, 0)
    plan = ProbePlan.from_config(config["probes"])
    observations = observe_probes(loaded, control, plan, 0, lambda *_: None)
    made = Case(loaded, control, observations, config, str(gate), inputs, folder / "out")
    made.told(made.out)
    return made


def test_an_honest_run_passes(case):
    assert case.failing(case.out) == set()


def test_nothing_at_all_fails_every_measurement(case, tmp_path):
    failing = case.failing(tmp_path)
    check = "test_probe_measurement_follows_from_what_was_stored"
    assert {f"{check}[{name}]" for name in probe_numbers.UNITS} < failing


def test_each_measurement_is_judged(case, tmp_path):
    """All are changed at once; each has a check of its own, which reads no other."""
    out = case.told(tmp_path / "out")
    result = json.loads((out / "result.json").read_text())
    for measurement in result["measurements"].values():
        value = measurement["value"]
        measurement["value"] += 1 if isinstance(value, int) else 0.05 * value or 0.05
    (out / "result.json").write_text(json.dumps(result))
    check = "test_probe_measurement_follows_from_what_was_stored"
    assert {f"{check}[{name}]" for name in probe_numbers.UNITS} <= case.failing(out)


#### lies


def test_labels_that_were_shuffled_are_seen(case, tmp_path):
    def shuffle(observations: ProbeObservations) -> ProbeObservations:
        order = np.random.default_rng(0).permutation(len(observations.ids))
        labels = {name: own[order] for name, own in observations.labels.items()}
        return case.refitted(replace(observations, labels=labels))

    assert {TOKENS_CHECK, CLASSES_CHECK} <= case.failing(case.told(tmp_path / "out", shuffle))


def test_test_functions_that_were_trained_on_are_seen(case, tmp_path):
    """The probe is fitted on all functions, those of the test among them."""

    def leak(observations: ProbeObservations) -> ProbeObservations:
        found: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
        count = observations.plan.train
        for layer in streams(case.loaded.model, observations.ids, 3):
            (vectors,) = probing.standardised(layer.reshape(-1, layer.shape[-1]))
            for name, labels in observations.labels.items():
                targets = labels[:, 1:].ravel()
                probe = probing.fit_probe(vectors, targets, len(CLASSES[name]), 0.03)
                classes = probe.predict(vectors).reshape(len(labels), -1)[count:]
                found[name].append(classes.astype(np.uint8))
        return with_predictions(
            observations, TASK, {name: np.stack(own) for name, own in found.items()}
        )

    assert CLASSES_CHECK in case.failing(case.told(tmp_path / "out", leak))


def test_test_functions_that_are_those_of_training_are_seen(case, tmp_path):
    def copy(observations: ProbeObservations) -> ProbeObservations:
        test = observations.rows(TEST)
        first = slice(0, observations.plan.test)

        def copied(array: np.ndarray) -> np.ndarray:
            changed = array.copy()
            changed[test] = array[first]
            return changed

        functions = list(observations.functions)
        functions[test] = [replace(one, split=TEST) for one in functions[first]]
        return case.refitted(
            replace(
                observations,
                functions=functions,
                ids=copied(observations.ids),
                labels={name: copied(own) for name, own in observations.labels.items()},
                control={name: copied(own) for name, own in observations.control.items()},
            )
        )

    failing = case.failing(case.told(tmp_path / "out", copy))
    assert {
        FUNCTIONS_CHECK,
        TOKENS_CHECK,
        CLASSES_CHECK,
        "test_probe_functions_of_one_package_are_in_one_split",
    } <= failing


def test_a_depth_that_the_test_chose_is_seen(case, tmp_path, monkeypatch):
    of = lab_numbers.accuracies_by_depth

    def by_test(observations: Any, name: str, reading: str, split: str) -> Any:
        depths = of(observations, name, reading, TEST)
        if split == TEST:
            return depths
        # the honest depth must not be chosen, or there is no lie
        honest = int(np.argmax([depth.value for depth in of(observations, name, reading, split)]))
        others = [-1.0 if i == honest else depth.value for i, depth in enumerate(depths)]
        return [replace(one, value=v) for one, v in zip(depths, others, strict=True)]

    monkeypatch.setattr(lab_numbers, "accuracies_by_depth", by_test)
    failing = case.failing(case.told(tmp_path / "out"))
    check = "test_probe_measurement_follows_from_what_was_stored"
    for name in CLASSES:
        assert f"{check}[probe_{name}_best_layer]" in failing
        assert f"{check}[probe_{name}_accuracy]" in failing


@pytest.mark.parametrize("kind", ["the task itself", "by token and place", "another draw"])
def test_a_control_task_that_is_no_control_is_seen(case, tmp_path, kind):
    def alter(observations: ProbeObservations) -> ProbeObservations:
        rng = np.random.default_rng(0)
        control = {}
        for name, labels in observations.labels.items():
            drawn = rng.integers(0, len(CLASSES[name]), labels.shape)
            types = rng.integers(0, len(CLASSES[name]), int(observations.ids.max()) + 1)
            control[name] = {
                "the task itself": labels,
                "by token and place": drawn,
                "another draw": types[observations.ids],
            }[kind]
        vectors = streams(case.loaded.model, observations.ids, 3)
        fitted = predictions(vectors, {CONTROL: control}, observations.plan)
        changed = replace(observations, control=control)
        return with_predictions(changed, CONTROL, {name: fitted[name][CONTROL] for name in CLASSES})

    failing = case.failing(case.told(tmp_path / "out", alter))
    assert {TOKENS_CHECK, CLASSES_CHECK} <= failing
    if kind == "by token and place":
        assert "test_probe_control_task_is_one_class_per_token_type" in failing


def test_a_table_of_tokens_that_was_made_worse_is_seen(case, tmp_path, monkeypatch):
    """It takes the most frequent class of a token, as if accuracies were not balanced."""

    def most_frequent(train_ids, train_labels, token_ids, classes):
        known: dict[int, list[int]] = {}
        for one, label in zip(train_ids.tolist(), train_labels.tolist(), strict=True):
            known.setdefault(one, [0] * classes)[label] += 1
        best = [int(np.argmax(known.get(one, [1]))) for one in token_ids.tolist()]
        return np.eye(classes)[best]

    monkeypatch.setattr(probing, "token_identity", most_frequent)
    failing = case.failing(case.told(tmp_path / "out"))
    check = "test_probe_measurement_follows_from_what_was_stored"
    for name in ("identity", "over_identity", "position", "over_position"):
        assert f"{check}[probe_part_{name}]" in failing


@pytest.mark.parametrize("other", ["another seed", "zeros"])
def test_random_weights_that_are_others_are_seen(case, tmp_path, other):
    def alter(observations: ProbeObservations) -> ProbeObservations:
        model = untrained(case.loaded.model, 1)
        if other == "zeros":
            for parameter in model.parameters():
                torch.nn.init.zeros_(parameter)
        vectors = streams(model, observations.ids, 3)
        fitted = predictions(vectors, {RANDOM: observations.labels}, observations.plan)
        return with_predictions(
            observations, RANDOM, {name: fitted[name][RANDOM] for name in CLASSES}
        )

    assert CLASSES_CHECK in case.failing(case.told(tmp_path / "out", alter))


def test_random_weights_that_are_the_trained_ones_are_seen(case, tmp_path):
    def alter(observations: ProbeObservations) -> ProbeObservations:
        classes = {name: own[TASK] for name, own in observations.predicted.items()}
        return with_predictions(observations, RANDOM, classes)

    assert CLASSES_CHECK in case.failing(case.told(tmp_path / "out", alter))


def test_classes_that_were_invented_are_seen(case, tmp_path):
    """The probe is right nine times in ten, at the last depth."""

    def invent(observations: ProbeObservations) -> ProbeObservations:
        rng = np.random.default_rng(0)
        changed = {}
        for name, own in observations.predicted.items():
            classes = own[TASK].copy()
            right = observations.labels[name][observations.plan.train :, 1:]
            classes[-1] = np.where(rng.random(right.shape) < 0.9, right, classes[-1])
            changed[name] = classes
        return with_predictions(observations, TASK, changed)

    assert CLASSES_CHECK in case.failing(case.told(tmp_path / "out", invent))


def test_a_few_classes_that_were_put_right_are_seen(case, tmp_path):
    """They are too few to be many of all tokens, and all of the rarest class."""

    def put_right(observations: ProbeObservations) -> ProbeObservations:
        held_out = observations.labels[PART][observations.plan.train :, 1:]
        classes = observations.predicted[PART][TASK].copy()
        rarest = int(np.bincount(held_out.ravel()).argmin())
        wrong = np.argwhere((held_out == rarest) & (classes[-1] != rarest))
        for row, column in wrong[wrong[:, 0] < observations.plan.validation][:8]:
            classes[-1, row, column] = rarest
        changed = {name: own[TASK] for name, own in observations.predicted.items()}
        return with_predictions(observations, TASK, {**changed, PART: classes})

    assert CLASSES_CHECK in case.failing(case.told(tmp_path / "out", put_right))


@pytest.mark.parametrize("reading", [TASK, CONTROL])
def test_one_class_at_each_depth_that_was_put_right_or_wrong_is_seen(case, tmp_path, reading):
    """The share of tokens, and the change of the accuracy, are those of rounding."""

    def change(observations: ProbeObservations) -> ProbeObservations:
        labels = observations.labels if reading == TASK else observations.control
        own = labels[PART][observations.plan.train :, 1:]
        classes = observations.predicted[PART][reading].copy()
        for layer in classes:
            is_right = layer == own
            row, column = np.argwhere(~is_right if reading == TASK else is_right)[-1]
            other = (own[row, column] + 1) % len(CLASSES[PART])
            layer[row, column] = own[row, column] if reading == TASK else other
        changed = {name: made[reading] for name, made in observations.predicted.items()}
        return with_predictions(observations, reading, {**changed, PART: classes})

    assert CLASSES_CHECK in case.failing(case.told(tmp_path / "out", change))


def test_another_property_under_the_name_of_a_property_is_seen(case, tmp_path):
    """Whether a token is blank, which is easy, is called being inside a string."""

    def rename(observations: ProbeObservations) -> ProbeObservations:
        easy = (observations.ids % 2).astype(observations.ids.dtype)
        labels = {**observations.labels, STRING: easy}
        return case.refitted(replace(observations, labels=labels))

    assert {TOKENS_CHECK, CLASSES_CHECK} <= case.failing(case.told(tmp_path / "out", rename))


def test_functions_of_another_seed_are_seen(case, tmp_path):
    def alter(observations: ProbeObservations) -> ProbeObservations:
        return observe_probes(case.loaded, case.untrained, observations.plan, 1, lambda *_: None)

    assert {FUNCTIONS_CHECK, TOKENS_CHECK, CLASSES_CHECK} <= case.failing(
        case.told(tmp_path / "out", alter)
    )


@pytest.mark.parametrize("setting", sorted(probe_checks.PLANNED))
def test_other_settings_than_the_planned_ones_are_seen(case, tmp_path, setting):
    out = case.told(tmp_path / "out")
    result = json.loads((out / "result.json").read_text())
    result["environment"]["config"]["probes"][setting] += 1
    (out / "result.json").write_text(json.dumps(result))
    check = "test_probe_settings_are_those_of_the_plan"
    assert check in warm.failing(case.gate, out, case.inputs, checks=[check])


#### words


def test_a_verdict_of_another_kind_is_seen(case, tmp_path):
    out = case.told(tmp_path / "out")
    result = json.loads((out / "result.json").read_text())
    verdict = "that training adds something is not clear of both"
    assert verdict in result["findings"][3]
    result["findings"][3] = result["findings"][3].replace(verdict, "the rest is owed to training")
    (out / "result.json").write_text(json.dumps(result))
    check = "test_probe_findings_say_what_follows_from_the_numbers"
    assert check in case.failing(out)


@pytest.mark.parametrize("name", ["probe_part", "probe_string"])
def test_labels_of_a_figure_that_were_exchanged_are_seen(case, tmp_path, name):
    out = case.told(tmp_path / "out")
    path = out / f"figures/{name}.json"
    figure = json.loads(path.read_text())
    first, second = figure["series"][:2]
    first["label"], second["label"] = second["label"], first["label"]
    path.write_text(json.dumps(figure))
    assert f"test_probe_figure_shows_what_was_stored[{name}]" in case.failing(out)


@pytest.mark.parametrize("index", [0, 1])
def test_a_number_of_a_table_is_judged(case, tmp_path, index):
    out = case.told(tmp_path / "out")
    result = json.loads((out / "result.json").read_text())
    result["tables"][index]["rows"][1][3] += 0.01
    (out / "result.json").write_text(json.dumps(result))
    assert "test_probe_tables_follow_from_what_was_stored" in case.failing(out)


def test_the_gate_has_the_classes_of_the_lab():
    from gates.representation_analysis import probe_texts

    assert dict(probe_texts.CLASSES) == dict(CLASSES)
    assert probe_texts.SPLITS == SPLITS
    assert set(probe_texts.CLASSES) == {PART, STRING}
