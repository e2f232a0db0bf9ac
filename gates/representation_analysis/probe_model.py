"""FEAT-015's probes fitted again: all vectors from the model, all probes by code of its own.

Nothing of it reads what the experiment stored: functions and labels are drawn from the seed, the
random weights too. torch is imported inside the functions, so that a warm cache never loads it.
"""

from __future__ import annotations

import warnings
from typing import Any

from gates.representation_analysis import probe_texts
from gates.representation_analysis.probe_texts import CLASSES
from gates.shared import outputs, stored
from gates.shared.stored import cached, config

BATCH = 30
PREDICTIONS = "artifacts/probe_predictions.safetensors"
READINGS = ("task", "control", "random")
LEVEL = (
    0.002  # scores of two classes that are as near as this may change places; labels are 0 and 1
)


def differences() -> dict[str, list[list[float]]]:
    """Return "property.reading" -> of the stored classes that are other ones, by depth:

    the share of all, and how many are not even a second one that is LEVEL with the first.
    """

    def compare() -> dict[str, list[list[float]]]:
        actual = stored.arrays("probe_predictions")
        found = {}
        for name, expected in recomputed().items():
            assert actual[name].shape == expected.shape, f"{name}: shape {actual[name].shape}"
            is_other = actual[name] != expected
            wrong = is_other & (actual[name] != seconds()[name])
            found[name] = [is_other.mean((1, 2)).tolist(), wrong.sum((1, 2)).tolist()]
        return found

    return dict(cached(f"probe differences {probe_texts.key()}", [PREDICTIONS], compare))


def recomputed() -> dict[str, Any]:
    """Return "property.reading" -> the classes of all held-out tokens, [depths, F', T − 1]."""
    return _classes(0)


def seconds() -> dict[str, Any]:
    """Return the same of the second classes where they are LEVEL, else the first once more."""
    return _classes(1)


def _classes(place: int) -> dict[str, Any]:
    import numpy as np

    digits = cached(f"probe predictions {probe_texts.key()}", [], _predict_all)
    width = probe_texts.settings()["tokens"] - 1
    arrays = {}
    for name, rows in digits.items():
        classes = np.array([[int(digit) for digit in row[place]] for row in rows])
        arrays[name] = classes.reshape(len(rows), -1, width)
    return arrays


def _predict_all() -> dict[str, list[list[str]]]:
    """Return "property.reading" -> by depth first and second classes, a digit a held-out token."""
    # The trained model reads both tasks, random weights the true labels alone.
    found: dict[str, list[list[str]]] = {}
    for vectors in _streams(_model(), None):
        for prop in CLASSES:
            for reading, kind in (("task", "labels"), ("control", "control")):
                classes = _predict(vectors, probe_texts.labels(prop, kind), len(CLASSES[prop]))
                found.setdefault(f"{prop}.{reading}", []).append(classes)
    for vectors in _streams(_random_model(), probe_texts.settings()["random_depths"]):
        for prop in CLASSES:
            classes = _predict(vectors, probe_texts.labels(prop), len(CLASSES[prop]))
            found.setdefault(f"{prop}.random", []).append(classes)
    return found


def _predict(vectors: Any, labels: Any, classes: int) -> list[str]:
    """Return the classes of all functions behind training by a probe fitted on training.

    First the classes, then those that might be instead, see `seconds`.

    vectors: [F, T − 1, D], standardised; labels: [F, T].
    """
    import numpy as np

    count = probe_texts.settings()["train"]
    inputs, targets = vectors[:count].reshape(-1, vectors.shape[-1]), labels[:count, 1:].ravel()

    # Weighted least squares with a column of ones for the bias, which the ridge leaves alone.
    frequency = np.bincount(targets, minlength=classes)
    share = 1 / ((frequency > 0).sum() * frequency[targets])
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    design *= np.sqrt(share)[:, None]
    wanted = (targets[:, None] == np.arange(classes)) * np.sqrt(share)[:, None]
    normal = design.T @ design
    places = np.arange(inputs.shape[1])
    normal[places, places] += probe_texts.settings()["ridge"]
    weights = np.linalg.solve(normal, design.T @ wanted)  # [D + 1, C]

    scores = vectors[count:].reshape(-1, vectors.shape[-1]) @ weights[:-1] + weights[-1]
    scores[:, frequency == 0] = -np.inf
    first = scores.argmax(1)
    tokens = np.arange(len(scores))
    others = scores.copy()
    others[tokens, first] = -np.inf
    second = others.argmax(1)
    is_level = others[tokens, second] > scores[tokens, first] - LEVEL
    second = np.where(is_level, second, first)
    return ["".join(map(str, column)) for column in (first, second)]


def _streams(model: Any, depths: int | None) -> Any:
    """Yield the stream [F, T − 1, D] at each depth, standardised by the functions of training.

    depths: only the first ones; None: all, the last of them before the final norm.
    """
    import numpy as np
    import torch

    if depths is not None:
        model.model.layers = model.model.layers[: depths - 1]  # depth 0 is before the first
    ends: list[Any] = []
    model.model.norm.register_forward_pre_hook(lambda _, inputs: ends.append(inputs[0]))
    batches = []
    for batch in torch.from_numpy(probe_texts.ids()).split(BATCH):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            entering = model.model(batch, output_hidden_states=True).hidden_states[:-1]
        batches.append(torch.stack([*entering, ends.pop()])[:, :, 1:].float().numpy())
    streams = np.concatenate(batches, axis=1)
    count = probe_texts.settings()["train"]
    for stream in streams:
        values = stream.astype("float64")
        deviation = values[:count].std((0, 1))
        yield (values - values[:count].mean((0, 1))) / np.where(deviation > 0, deviation, 1)


def _model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float32).eval()


def _random_model() -> Any:
    """Return the model with the random weights that the run's seed draws, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(probe_texts.seed())
    drawn = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder()), dtype=getattr(torch, config()["dtype"])
    )
    return drawn.float().eval()


def folder() -> Any:
    """Return the folder of the model."""
    return outputs.inputs()[config()["model"]]
