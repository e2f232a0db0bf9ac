"""Linear probes: is a property of a token in its vector, and does the probe read it from there?

A probe is a linear map that was fitted on some tokens and is judged on others (Alain and Bengio
2016, arXiv:1610.01644). A high accuracy alone says little, so this file has what it is compared
with: the control task (Hewitt and Liang 2019, arXiv:1909.03368) and the token alone. All
accuracies are balanced, the mean over classes of the share that is read rightly, so that chance is
1/C for every task of C classes, however rare a class is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Probe:
    """A linear map: class = argmax(x · weights + bias); weights [D, C], bias [C]."""

    weights: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class of each vector of features [N, D]: [N]; of equal scores the first."""
        return np.asarray((features @ self.weights + self.bias).argmax(-1))


def standardised(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Return arrays [N, D] in float64, each feature with mean 0 and deviation 1 over `train`.

    A feature that is constant over `train` is only centred.
    """
    train = train.astype(np.float64)
    mean, scale = train.mean(0), train.std(0)
    scale[scale == 0] = 1
    return [(array.astype(np.float64) - mean) / scale for array in (train, *others)]


def fit_probe(features: np.ndarray, labels: np.ndarray, classes: int, ridge: float) -> Probe:
    """Return the class-balanced ridge regression of one-hot labels on features, in closed form.

    It minimises Σ_i w_i · |y_i − (W'x_i + b)|² + ridge · |W|². The weight w_i is 1 / (K · n_c) for
    a token of class c, of which there are n_c, and K classes that occur: each class weighs 1/K, and
    all tokens together 1. So `ridge` means the same for any number of tokens. b is not shrunk.

    Args:
        features: standardised, [N, D].
        labels: classes from 0 to `classes` − 1, [N].
        classes: the number of classes; one that does not occur is never predicted.
        ridge: above 0.
    """
    # 1. A weight for each token.
    counts = np.bincount(labels, minlength=classes)
    weights = 1 / (np.count_nonzero(counts) * counts[labels])  # [N]

    # 2. Centred by the weighted means, so that the bias drops out.
    targets = np.eye(classes)[labels]  # [N, C]
    feature_mean, target_mean = weights @ features, weights @ targets
    root = np.sqrt(weights)[:, None]
    x = root * (features - feature_mean)
    y = root * (targets - target_mean)

    # 3. The normal equations.
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge
    solution = np.linalg.solve(gram, x.T @ y)  # [D, C]
    bias = target_mean - feature_mean @ solution
    bias[counts == 0] = -np.inf
    return Probe(solution, bias)


def control_labels(
    token_ids: np.ndarray, frequencies: Sequence[int], seed: int | str
) -> np.ndarray:
    """Return the labels of the control task: each token type gets one random class, everywhere.

    Whoever knows which token it is can learn them; nothing else in the text helps. The classes are
    drawn by `frequencies`, in the order of the token ids: random.Random(seed).choices. Labels have
    the shape of `token_ids`.
    """
    types, places = np.unique(token_ids, return_inverse=True)
    draw = random.Random(seed)
    drawn = draw.choices(range(len(frequencies)), weights=frequencies, k=len(types))
    return np.asarray(drawn)[places].reshape(token_ids.shape)


def token_identity(
    train_ids: np.ndarray, train_labels: np.ndarray, token_ids: np.ndarray, classes: int
) -> np.ndarray:
    """Return the chance that a table of token types gives each class: [N, C] for token_ids [N].

    A type has the class of which it is the largest share in training, n(type, c) / n(c): that is
    the best choice for a balanced accuracy; of equal ones the first. A type that training does not
    have gets each class with the chance 1/C.
    """
    class_sizes = np.maximum(np.bincount(train_labels, minlength=classes), 1)
    types, places = np.unique(train_ids, return_inverse=True)
    counts = np.zeros((len(types), classes))
    np.add.at(counts, (places, train_labels), 1)
    best = (counts / class_sizes).argmax(1)  # [types]

    chances = np.full((len(token_ids), classes), 1 / classes)
    found = np.minimum(np.searchsorted(types, token_ids), len(types) - 1)
    is_known = types[found] == token_ids
    chances[is_known] = np.eye(classes)[best[found[is_known]]]
    return chances


def class_sums(
    values: np.ndarray, labels: np.ndarray, groups: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return the sum of values [N] of each group and class, [groups, classes]."""
    sums = np.zeros(shape)
    np.add.at(sums, (groups, labels), values)
    return sums


@dataclass(frozen=True)
class Accuracy:
    """A balanced accuracy, or a difference of two: its value, and those without one group each.

    left_out: [groups]; jackknife_stderr of lab.stats makes a standard error of it.
    """

    value: float
    left_out: np.ndarray

    def minus(self, other: Accuracy) -> Accuracy:
        """Return the difference of two accuracies on the same groups.

        Of a task and its control task it is the selectivity: both are balanced accuracies of
        as many classes, with the same chance level.
        """
        return Accuracy(self.value - other.value, self.left_out - other.left_out)


def balanced_accuracy(hits: np.ndarray, totals: np.ndarray) -> Accuracy:
    """Return the mean over classes of hits / totals; both are [groups, classes].

    hits: tokens read rightly; totals: tokens. A class without tokens does not count. The groups are
    what is independent: packages or functions, not tokens.
    """
    all_hits, all_totals = hits.sum(0), totals.sum(0)
    left_out = [
        mean_recall(all_hits - h, all_totals - t) for h, t in zip(hits, totals, strict=True)
    ]
    return Accuracy(mean_recall(all_hits, all_totals), np.asarray(left_out))


def mean_recall(hits: np.ndarray, totals: np.ndarray) -> float:
    """Return the mean of hits / totals over the classes [C] that occur."""
    occurs = totals > 0
    return float((hits[occurs] / totals[occurs]).mean())
