"""The measurements of the probes: pure functions of their observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.contract import Measurement
from lab.instruments import probing
from lab.instruments.probing import Accuracy
from lab.representation_analysis.probe_measured import (
    CLASSES,
    CONTROL,
    RANDOM,
    SPLITS,
    TASK,
    TEST,
    TRAIN,
    VALIDATION,
    ProbeObservations,
)
from lab.stats.jackknife import jackknife_stderr


@dataclass(frozen=True)
class Reading:
    """What is known of one property, on the functions of the test.

    task, control, random: by depth; best: the depth with the highest accuracy on the functions of
    validation; best_random: the depth at which random weights do best on the test itself, which
    favours the control; identity, position: from a table of token types, of positions.
    """

    task: list[Accuracy]
    control: list[Accuracy]
    random: list[Accuracy]
    best: int
    best_random: int
    identity: Accuracy
    position: Accuracy


def reading_of(observations: ProbeObservations, name: str) -> Reading:
    """Return the accuracies of one property."""
    accuracies = {}
    for reading in (TASK, CONTROL, RANDOM):
        accuracies[reading] = accuracies_by_depth(observations, name, reading, TEST)
    validation = accuracies_by_depth(observations, name, TASK, VALIDATION)
    random_values = [accuracy.value for accuracy in accuracies[RANDOM]]
    positions = np.broadcast_to(np.arange(observations.ids.shape[1]), observations.ids.shape)
    return Reading(
        task=accuracies[TASK],
        control=accuracies[CONTROL],
        random=accuracies[RANDOM],
        best=int(np.argmax([accuracy.value for accuracy in validation])),
        best_random=int(np.argmax(random_values)),
        identity=probing.balanced_accuracy(*table_counts(observations, name, observations.ids)),
        position=probing.balanced_accuracy(*table_counts(observations, name, positions)),
    )


def accuracies_by_depth(
    observations: ProbeObservations, name: str, reading: str, split: str
) -> list[Accuracy]:
    """Return the balanced accuracy of the probe at each depth, on a split's functions."""
    labels = (observations.control if reading == CONTROL else observations.labels)[name]
    own = labels[observations.rows(split), 1:]  # [F, T − 1]
    start = observations.rows(split).start - observations.plan.train
    accuracies = []
    for layer in observations.predicted[name][reading]:  # [F', T − 1]
        hits = layer[start : start + len(own)] == own
        made = counts(hits, own, packages(observations, split), len(CLASSES[name]))
        accuracies.append(probing.balanced_accuracy(*made))
    return accuracies


def packages(observations: ProbeObservations, split: str) -> np.ndarray:
    """Return the package of each function of a split, as a number from 0 on: [F].

    Functions of one package are alike, so packages are what is independent.
    """
    functions = observations.functions[observations.rows(split)]
    _, places = np.unique([function.package for function in functions], return_inverse=True)
    return np.asarray(places)


def counts(
    hits: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hits and the tokens of each group and class, [G, C], from [F, T − 1].

    groups: of each function, [F].
    """
    places = np.repeat(groups, labels.shape[1])
    shape = (int(groups.max()) + 1, classes)
    totals = probing.class_sums(np.ones(labels.size), labels.ravel(), places, shape)
    return probing.class_sums(hits.ravel(), labels.ravel(), places, shape), totals


def table_counts(
    observations: ProbeObservations, name: str, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a table of keys [F, T] reads rightly of the test: hits and tokens, [G, C]."""
    labels, classes = observations.labels[name], len(CLASSES[name])
    train, test = observations.rows(TRAIN), observations.rows(TEST)
    own = labels[test, 1:]
    chances = probing.token_identity(
        keys[train, 1:].ravel(), labels[train, 1:].ravel(), keys[test, 1:].ravel(), classes
    )
    hits = chances[np.arange(own.size), own.ravel()].reshape(own.shape)
    return counts(hits, own, packages(observations, TEST), classes)


def probe_measurements(observations: ProbeObservations) -> dict[str, Measurement]:
    """Return all measurements of the probes by name."""
    measurements = _of_the_texts(observations)
    for name in CLASSES:
        measurements |= _of_the_property(observations, name)
    return measurements


def _of_the_texts(observations: ProbeObservations) -> dict[str, Measurement]:
    exact = Measurement.of_exact
    measurements = {}
    for split in SPLITS:
        rows = observations.ids[observations.rows(split), 1:]
        measurements[f"probe_functions_{split}"] = exact(len(rows), "functions")
        measurements[f"probe_tokens_{split}"] = exact(rows.size, "tokens")
    seen = observations.ids[observations.rows(TRAIN), 1:]
    unseen = ~np.isin(observations.ids[observations.rows(TEST), 1:], seen)
    return measurements | {"probe_tokens_unseen": exact(int(unseen.sum()), "tokens")}


def _of_the_property(observations: ProbeObservations, name: str) -> dict[str, Measurement]:
    reading = reading_of(observations, name)
    best, control = reading.task[reading.best], reading.control[reading.best]
    random_weights = reading.random[reading.best_random]
    estimates = {
        "accuracy": best,
        "control": control,
        "selectivity": best.minus(control),
        "identity": reading.identity,
        "over_identity": best.minus(reading.identity),
        "position": reading.position,
        "over_position": best.minus(reading.position),
        "embedding": reading.task[0],
        "over_embedding": best.minus(reading.task[0]),
        "random_weights": random_weights,
        "over_random_weights": best.minus(random_weights),
    }
    classes = len(CLASSES[name])
    exact = Measurement.of_exact
    measurements = {
        f"probe_{name}_best_layer": exact(reading.best, "layer"),
        f"probe_{name}_random_weights_layer": exact(reading.best_random, "layer"),
        f"probe_{name}_classes": exact(classes, "classes"),
        f"probe_{name}_chance": exact(1 / classes, "share"),
    }
    for key, accuracy in estimates.items():
        measurements[f"probe_{name}_{key}"] = Measurement.of_estimate(
            accuracy.value,
            "share",
            stderr=jackknife_stderr(accuracy.left_out.tolist()),
            n=len(accuracy.left_out),
        )
    return measurements
