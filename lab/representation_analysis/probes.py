"""Linear probes at every depth of the model, with what each reading is compared with.

Position 0 of each function is in no training and in no test: it holds `def` every time, and its
vector is the outlier of the attention sink.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.instruments import probing
from lab.instruments.activations import ActivationExtractor
from lab.instruments.arrays import save_arrays
from lab.representation_analysis.probe_measured import (
    CLASSES,
    CONTROL,
    RANDOM,
    TASK,
    ProbeObservations,
    ProbePlan,
)
from lab.representation_analysis.probe_texts import labelled_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lab.instruments.models import Loaded

BATCH = 20  # functions in one pass
Labels = Mapping[str, Mapping[str, np.ndarray]]


def observe_probes(
    loaded: Loaded,
    untrained: PreTrainedModel,
    plan: ProbePlan,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> ProbeObservations:
    """Fit all probes and return what they predict of the functions that they were not fitted on.

    Args:
        loaded: the model that is read.
        untrained: the same architecture with random weights.
        plan: the settings.
        seed: of the functions, their split, and the control tasks.
        progress: told of 4 steps.
    """
    # 1. The functions, their labels, and those of the control tasks.
    progress(0, 4, "functions for the probes")
    tokens = labelled_tokens(loaded.tokenizer, plan, seed)
    control = {}
    for name, labels in tokens.labels.items():
        frequencies = np.bincount(labels[: plan.train, 1:].ravel(), minlength=len(CLASSES[name]))
        control[name] = probing.control_labels(
            tokens.ids, frequencies.tolist(), seed=f"{name} {seed}"
        )

    # 2. The trained model, with the task and its control; then random weights, with the task.
    predicted: dict[str, dict[str, np.ndarray]] = {name: {} for name in CLASSES}
    all_depths = loaded.model.config.num_hidden_layers + 1
    runs: list[tuple[PreTrainedModel, int, Labels]] = [
        (loaded.model, all_depths, {TASK: tokens.labels, CONTROL: control}),
        (untrained, min(plan.random_depths, all_depths), {RANDOM: tokens.labels}),
    ]
    for step, (model, depths, labels_of) in enumerate(runs):
        progress(2 * step, 4, "activations for the probes")
        vectors = streams(model, tokens.ids, depths)
        progress(2 * step + 1, 4, "probes")
        for name, own in predictions(vectors, labels_of, plan).items():
            predicted[name] |= own
    progress(4, 4, "probes")
    return ProbeObservations(plan, tokens.functions, tokens.ids, tokens.labels, control, predicted)


def streams(model: PreTrainedModel, ids: np.ndarray, depths: int) -> np.ndarray:
    """Return the residual stream at the first depths, [depths, F, T − 1, D], without position 0.

    ids: [F, T]; depths: from 2 to L + 1. Layers behind the last of these depths are not computed.
    """
    batches = []
    for batch in torch.from_numpy(ids).split(BATCH):
        extractor = ActivationExtractor(
            model, record=("resid_pre", "resid_post"), layers=range(depths - 1), stop=True
        )
        with torch.no_grad(), extractor:
            model(batch.to(model.device))
        extractor.require_all_recorded()
        # the output of a layer is the input of the next
        stream = [extractor["resid_pre", 0]]
        stream += [extractor["resid_post", layer] for layer in extractor.layers]
        batches.append(np.stack([np.asarray(x[:, 1:].float().cpu()) for x in stream]))
    return np.concatenate(batches, axis=1)


def predictions(
    vectors: np.ndarray, labels_of: Labels, plan: ProbePlan
) -> dict[str, dict[str, np.ndarray]]:
    """Return property -> reading -> the classes that the probes at each depth give.

    vectors: [depths, F, T − 1, D]; labels_of: reading -> property -> [F, T]. Probes are fitted on
    the functions of training; the classes are those of all others, [depths, F', T − 1].
    """
    held_out = (plan.validation + plan.test, vectors.shape[2])
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in CLASSES}
    for layer in vectors:
        width = layer.shape[-1]
        train, others = probing.standardised(
            layer[: plan.train].reshape(-1, width), layer[plan.train :].reshape(-1, width)
        )
        for reading, labels in labels_of.items():
            for name, own in labels.items():
                targets = own[: plan.train, 1:].ravel()
                probe = probing.fit_probe(train, targets, len(CLASSES[name]), plan.ridge)
                classes = probe.predict(others).reshape(held_out).astype(np.uint8)
                found[name].setdefault(reading, []).append(classes)
    return {
        name: {reading: np.stack(layers) for reading, layers in readings.items()}
        for name, readings in found.items()
    }


def store_probes(folder: Path, observations: ProbeObservations) -> None:
    """Write what was observed below a folder.

    probe_functions.json: the functions; probe_tokens.safetensors: ids, labels and control labels;
    probe_predictions.safetensors: PROPERTY.READING.
    """
    functions = [vars(function) for function in observations.functions]
    path = folder / "probe_functions.json"
    path.write_text(json.dumps(functions, indent=1) + "\n", encoding="utf-8")

    tokens = {"ids": observations.ids}
    predicted = {}
    for name in CLASSES:
        tokens[f"{name}.labels"] = observations.labels[name]
        tokens[f"{name}.control"] = observations.control[name]
        for reading, classes in observations.predicted[name].items():
            predicted[f"{name}.{reading}"] = classes
    save_arrays(folder / "probe_tokens.safetensors", tokens)
    save_arrays(folder / "probe_predictions.safetensors", predicted)
