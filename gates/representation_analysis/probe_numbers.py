"""FEAT-015's probe measurements, from the stored predictions and the labels that the seed draws.

Whether the predictions are right is checked in probe_model.py.
"""

from __future__ import annotations

from typing import Any

from gates.representation_analysis import probe_model, probe_texts
from gates.representation_analysis.probe_model import PREDICTIONS, READINGS
from gates.representation_analysis.probe_texts import CLASSES, SPLITS
from gates.shared import stored
from gates.shared.statistics import jackknife_stderr
from gates.shared.stored import cached

OF_THE_TEXTS = {
    **{f"probe_functions_{split}": "functions" for split in SPLITS},
    **{f"probe_tokens_{split}": "tokens" for split in SPLITS},
    "probe_tokens_unseen": "tokens",
}
OF_A_PROPERTY = {
    "best_layer": "layer",
    "random_weights_layer": "layer",
    "classes": "classes",
    **dict.fromkeys(
        (
            "chance",
            "accuracy",
            "control",
            "selectivity",
            "identity",
            "over_identity",
            "position",
            "over_position",
            "embedding",
            "over_embedding",
            "random_weights",
            "over_random_weights",
        ),
        "share",
    ),
}
UNITS = OF_THE_TEXTS | {
    f"probe_{prop}_{name}": unit for prop in CLASSES for name, unit in OF_A_PROPERTY.items()
}
Accuracies = list[float]  # of all functions, then without those of each package


def measurements() -> dict[str, Any]:
    """Return name -> value, or value, stderr and n of an estimate, of every measurement."""
    return dict(cached(f"probe measurements {probe_texts.key()}", [PREDICTIONS], _measurements))


def values() -> dict[str, Any]:
    """Return name -> value."""
    of = measurements()
    return {name: one["value"] if isinstance(one, dict) else one for name, one in of.items()}


def _measurements() -> dict[str, Any]:
    import numpy as np

    ids = probe_texts.ids()
    found: dict[str, Any] = {}
    for split in SPLITS:
        own = ids[probe_texts.rows(split), 1:]
        found[f"probe_functions_{split}"] = len(own)
        found[f"probe_tokens_{split}"] = own.size
    seen = np.isin(ids[probe_texts.rows("test"), 1:], ids[probe_texts.rows("train"), 1:])
    found["probe_tokens_unseen"] = int((~seen).sum())
    for prop in CLASSES:
        found |= {f"probe_{prop}_{name}": one for name, one in _of_property(prop).items()}
    return {name: found[name] for name in UNITS}


def _of_property(prop: str) -> dict[str, Any]:
    curves = by_depth(prop)
    best, best_random = chosen_depths(prop)
    accuracy, control = curves["task"][best], curves["control"][best]
    tables = {name: table(prop, name) for name in ("identity", "position")}
    others = tables | {
        "embedding": curves["task"][0],
        "random_weights": curves["random"][best_random],
    }
    found = {
        "best_layer": best,
        "random_weights_layer": best_random,
        "classes": len(CLASSES[prop]),
        "chance": 1 / len(CLASSES[prop]),
        "accuracy": _estimate(accuracy),
        "control": _estimate(control),
        "selectivity": _estimate(_minus(accuracy, control)),
    }
    for name, other in others.items():
        found |= {name: _estimate(other), f"over_{name}": _estimate(_minus(accuracy, other))}
    return found


def _minus(first: Accuracies, second: Accuracies) -> Accuracies:
    return [a - b for a, b in zip(first, second, strict=True)]


def _estimate(accuracies: Accuracies) -> dict[str, Any]:
    value, *left_out = accuracies
    return {"value": value, "stderr": jackknife_stderr(left_out), "n": len(left_out)}


def by_depth(prop: str) -> dict[str, list[Accuracies]]:
    """Return reading -> the balanced accuracies at each depth, on the functions of the test."""
    key = f"probe curves {prop} {probe_texts.key()}"
    return dict(cached(key, [PREDICTIONS], lambda: _by_depth(prop)))


def _by_depth(prop: str) -> dict[str, list[Accuracies]]:
    curves = {}
    for reading in READINGS:
        depths = range(len(stored.arrays("probe_predictions")[f"{prop}.{reading}"]))
        curves[reading] = [
            balanced(*right(prop, reading, depth, "test"), "test") for depth in depths
        ]
    return curves


def chosen_depths(prop: str) -> tuple[int, int]:
    """Return the depth that the functions of validation choose, and the best of random weights.

    The latter is the best on the test itself.
    """
    key = f"probe depths {prop} {probe_texts.key()}"
    best, best_random = cached(key, [PREDICTIONS], lambda: _chosen_depths(prop))
    return best, best_random


def _chosen_depths(prop: str) -> tuple[int, int]:
    depths = range(len(stored.arrays("probe_predictions")[f"{prop}.task"]))
    chosen_by = [
        balanced(*right(prop, "task", depth, "validation"), "validation")[0] for depth in depths
    ]
    of_random = [one[0] for one in by_depth(prop)["random"]]
    return chosen_by.index(max(chosen_by)), of_random.index(max(of_random))


def right(prop: str, reading: str, depth: int, split: str) -> tuple[Any, Any]:
    """Return for a split's tokens whether they were read rightly, and their classes, [F, T − 1]."""
    kind = "control" if reading == "control" else "labels"
    own = probe_texts.labels(prop, kind)[probe_texts.rows(split), 1:]
    classes = stored.arrays("probe_predictions")[f"{prop}.{reading}"][depth]
    return _right(classes, own, split), own


def _right(classes: Any, own: Any, split: str) -> Any:
    """Return where classes [F', T − 1] of validation and test are those of one of them, `own`."""
    held_out = {"validation": classes[: len(own)], "test": classes[-len(own) :]}[split]
    return held_out == own


def from_the_model() -> dict[str, list[list[float]]]:
    """Return "property.reading.split" -> by depth the accuracy as stored and from the model."""

    def compare() -> dict[str, list[list[float]]]:
        found: dict[str, list[list[float]]] = {}
        for name, expected in probe_model.recomputed().items():
            prop, reading = name.split(".")
            for split in ("validation", "test"):
                pairs = found.setdefault(f"{name}.{split}", [])
                for depth, classes in enumerate(expected):
                    hits, own = right(prop, reading, depth, split)
                    model = balanced(_right(classes, own, split), own, split)[0]
                    pairs.append([balanced(hits, own, split)[0], model])
        return found

    return dict(cached(f"probe accuracies {probe_texts.key()}", [PREDICTIONS], compare))


def table(prop: str, kind: str) -> Accuracies:
    """Return the balanced accuracies of a table of token types ("identity") or of positions."""
    return balanced(*table_right(prop, kind), "test")


def table_right(prop: str, kind: str) -> tuple[Any, Any]:
    """Return the chance that a table reads each token rightly, and the classes, [F, T − 1]."""
    import numpy as np

    keys = probe_texts.ids()
    if kind == "position":
        keys = np.tile(np.arange(keys.shape[1]), (len(keys), 1))
    labels = probe_texts.labels(prop)
    train, test = probe_texts.rows("train"), probe_texts.rows("test")
    classes = range(len(CLASSES[prop]))

    # 1. The class of which each key is the largest share.
    known: dict[int, list[int]] = {}
    for one, label in zip(keys[train, 1:].flat, labels[train, 1:].flat, strict=True):
        known.setdefault(int(one), [0] * len(classes))[label] += 1
    sizes = [max(1, sum(counts[place] for counts in known.values())) for place in classes]
    best = {}
    for one, counts in known.items():
        shares = [count / size for count, size in zip(counts, sizes, strict=True)]
        best[one] = shares.index(max(shares))

    # 2. What it reads rightly; of a key that training does not have, one in C.
    chances = []
    for one, label in zip(keys[test, 1:].flat, labels[test, 1:].flat, strict=True):
        chances.append(float(best[int(one)] == label) if int(one) in best else 1 / len(classes))
    own = labels[test, 1:]
    return np.array(chances).reshape(own.shape), own


def balanced(hits: Any, labels: Any, split: str) -> Accuracies:
    """Return the mean recall of the classes that occur: of all functions, then without packages.

    Without each one: functions of a package are alike, and all are in one split.
    """
    import numpy as np

    places = np.unique(labels)
    functions = probe_texts.drawn()["functions"][probe_texts.rows(split)]
    package_of = np.array([function["module"].split(".")[0] for function in functions])
    right_of = np.array([(hits * (labels == place)).sum(1) for place in places])  # [C, F]
    all_of = np.array([(labels == place).sum(1) for place in places])
    accuracies = [float((right_of.sum(1) / all_of.sum(1)).mean())]
    for package in sorted(set(package_of.tolist())):
        rest_right = right_of[:, package_of != package].sum(1)
        rest = all_of[:, package_of != package].sum(1)
        accuracies.append(float((rest_right[rest > 0] / rest[rest > 0]).mean()))
    return accuracies
