"""Probes on vectors whose content is known: what is there, what is not, and what only looks so."""

from __future__ import annotations

import numpy as np
import pytest

from lab.instruments import probing
from lab.stats.jackknife import jackknife_stderr

FUNCTIONS, TOKENS, WIDTH, CLASSES = 120, 40, 24, 3
TRAIN = 80  # functions


def draw(seed=0):
    """Return noise [F, T, D], token ids of 60 types and labels, [F, T] each."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((FUNCTIONS, TOKENS, WIDTH))
    ids = rng.integers(0, 60, (FUNCTIONS, TOKENS))
    labels = rng.choice(CLASSES, (FUNCTIONS, TOKENS), p=(0.8, 0.15, 0.05))
    return vectors, ids, labels


def accuracy_of(vectors, labels, ridge=0.03):
    """Return the accuracy on the functions behind TRAIN of a probe fitted on the others."""
    train, test = probing.standardised(
        vectors[:TRAIN].reshape(-1, WIDTH), vectors[TRAIN:].reshape(-1, WIDTH)
    )
    probe = probing.fit_probe(train, labels[:TRAIN].ravel(), CLASSES, ridge)
    hits = probe.predict(test) == labels[TRAIN:].ravel()
    return of_hits(hits, labels[TRAIN:])


def of_hits(hits, labels):
    groups = np.repeat(np.arange(len(labels)), labels.shape[1])
    shape = (len(labels), CLASSES)
    ones = np.ones(labels.size)
    return probing.balanced_accuracy(
        probing.class_sums(hits.ravel(), labels.ravel(), groups, shape),
        probing.class_sums(ones, labels.ravel(), groups, shape),
    )


def with_property(vectors, labels, size=4.0):
    """Return vectors with a direction of its own added for each class."""
    directions = np.linalg.qr(np.random.default_rng(9).standard_normal((WIDTH, WIDTH)))[0]
    return vectors + size * directions[labels]


def test_a_property_that_is_written_linearly_is_read():
    vectors, _, labels = draw()
    assert accuracy_of(with_property(vectors, labels), labels).value > 0.97


def test_noise_is_at_chance_however_rare_a_class_is():
    vectors, _, labels = draw()
    found = accuracy_of(vectors, labels)
    assert abs(found.value - 1 / CLASSES) < 3 * jackknife_stderr(found.left_out)


def test_labels_of_other_functions_are_at_chance():
    vectors, _, labels = draw()
    exchanged = labels[np.random.default_rng(1).permutation(FUNCTIONS)]
    found = accuracy_of(with_property(vectors, labels), exchanged)
    assert abs(found.value - 1 / CLASSES) < 3 * jackknife_stderr(found.left_out)


def test_a_probe_that_knows_the_token_alone_has_no_selectivity():
    """The trap: labels that follow from the type are read well, and so are random ones."""
    vectors, ids, _ = draw()
    embedding = np.random.default_rng(2).standard_normal((60, WIDTH)) * 5
    vectors = vectors * 0.1 + embedding[ids]
    labels = (ids % 10 == 0) + (ids % 10 == 1).astype(int) * 2
    frequencies = np.bincount(labels[:TRAIN].ravel(), minlength=CLASSES).tolist()
    control = probing.control_labels(ids, frequencies, seed=3)
    task = accuracy_of(vectors, labels)
    assert task.value > 0.6
    assert abs(task.minus(accuracy_of(vectors, control)).value) < 0.15

    # a property of the context, whatever the token is, is selective by the same control task
    noise, _, own = draw(1)
    context = with_property(noise, own)
    assert accuracy_of(context, own).minus(accuracy_of(context, control)).value > 0.5


def test_control_labels_are_one_class_per_type_with_the_frequencies_of_the_task():
    ids = np.arange(2000).repeat(2).reshape(40, 100)
    control = probing.control_labels(ids, [70, 20, 10], seed="part 0")
    assert control.shape == ids.shape
    assert len(set(zip(ids.flat, control.flat, strict=True))) == 2000
    np.testing.assert_allclose(np.bincount(control.ravel()) / ids.size, (0.7, 0.2, 0.1), atol=0.03)
    assert (control == probing.control_labels(ids, [70, 20, 10], seed="part 0")).all()
    assert (control != probing.control_labels(ids, [70, 20, 10], seed="part 1")).any()


def test_token_identity_takes_the_class_of_which_a_type_is_the_largest_share():
    ids = np.array([5] * 10 + [7] * 4)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 4)
    # type 5: 8/12 of class 0, 2/2 of class 1
    chances = probing.token_identity(ids, labels, np.array([5, 7, 6, 99]), 2)
    np.testing.assert_array_equal(chances, [[0, 1], [1, 0], [0.5, 0.5], [0.5, 0.5]])


def test_balanced_accuracy_counts_classes_alike_and_leaves_each_function_out():
    hits = np.array([[9.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    totals = np.array([[10.0, 1.0, 0.0], [10.0, 3.0, 0.0]])
    found = probing.balanced_accuracy(hits, totals)
    assert found.value == pytest.approx((9 / 20 + 2 / 4) / 2)
    np.testing.assert_allclose(found.left_out, [(0 + 1 / 3) / 2, (0.9 + 1) / 2])


def test_the_probe_is_the_minimum_of_its_loss():
    """Closed form against descent: no step in any direction makes the loss smaller."""
    vectors, _, labels = draw()
    (x,) = probing.standardised(vectors.reshape(-1, WIDTH))
    y = labels.ravel()
    probe = probing.fit_probe(x, y, CLASSES, 0.5)
    weights = 1 / (CLASSES * np.bincount(y)[y])
    assert weights.sum() == pytest.approx(1)

    def loss(w, b):
        residual = np.eye(CLASSES)[y] - x @ w - b
        return (weights * (residual**2).sum(1)).sum() + 0.5 * (w**2).sum()

    least = loss(probe.weights, probe.bias)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.standard_normal(probe.weights.shape) * 0.01
        shift = rng.standard_normal(CLASSES) * 0.01
        assert loss(probe.weights + step, probe.bias + shift) > least


def test_a_class_that_training_does_not_have_is_never_predicted():
    vectors, _, labels = draw()
    (x,) = probing.standardised(vectors.reshape(-1, WIDTH))
    probe = probing.fit_probe(x, np.minimum(labels, 1).ravel(), CLASSES, 0.03)
    assert set(probe.predict(x)) == {0, 1}


def test_a_constant_feature_does_no_harm():
    (x,) = probing.standardised(np.full((5, 1), 3.0))
    np.testing.assert_array_equal(x, np.zeros((5, 1)))
