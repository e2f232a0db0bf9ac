"""Stored arrays, rows and headers of a judged run, and a cache of what was computed from them.

Needs numpy and no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gates.shared import outputs

_COMPUTED: dict[tuple[str, str], Any] = {}


def cached(name: str, files: Iterable[str], compute: Callable[[], Any]) -> Any:
    """Return `outputs.cached`, once per process: a gate run by hand has no cache folder."""
    key = (str(outputs.out()), name)
    if key not in _COMPUTED:
        _COMPUTED[key] = outputs.cached(name, files, compute)
    return _COMPUTED[key]


def config() -> dict[str, Any]:
    """Return the settings that the run says it used."""
    settings: dict[str, Any] = outputs.result()["environment"]["config"]
    return settings


def artifact(name: str) -> Path:
    """Return the path of a stored file."""
    return outputs.out() / "artifacts" / name


def rows(name: str) -> list[dict[str, Any]]:
    """Return the examples of a frozen set (train, control, evaluation)."""
    return [json.loads(line) for line in artifact(f"{name}.jsonl").read_text("utf-8").splitlines()]


def supervised(row: dict[str, Any]) -> int:
    """Return how many tokens of an example the loss counts: those labelled, without the first."""
    return sum(label != -100 for label in row["labels"][1:])


def header(path: Path) -> dict[str, dict[str, Any]]:
    """Return name -> {"dtype", "shape"} of a safetensors file, from its header alone."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entries: dict[str, dict[str, Any]] = json.loads(file.read(size))
    entries.pop("__metadata__", None)
    return entries


def arrays(name: str) -> dict[str, Any]:
    """Return the arrays of artifacts/NAME.safetensors; an array that is not finite is refused."""
    return read_arrays(artifact(f"{name}.safetensors"))


def read_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a safetensors file, none of which has a value that is not finite."""
    import numpy as np
    from safetensors.numpy import load_file

    tensors: dict[str, Any] = load_file(path)
    for key, array in tensors.items():
        assert np.isfinite(array).all(), f"{path.name}: {key} has a value that is not finite"
    return tensors


def pair_differences(arrays: dict[str, Any], kind: str) -> list[float]:
    """Return the largest difference of KIND.recorded to KIND.reference in each layer."""
    recorded, reference = arrays[f"{kind}.recorded"], arrays[f"{kind}.reference"]
    assert recorded.shape == reference.shape, kind
    largest = []
    for ours, theirs in zip(recorded, reference, strict=True):
        largest.append(float(abs(ours.astype("float64") - theirs).max()))
    return largest


def ratio(above: Any, below: Any, example_ids: Any) -> dict[str, Any]:
    """Return Σ above / Σ below over tokens with its linearised standard error.

    All three are [tokens]; the examples are the independent units. With the examples' sums x and y,
    R = Σx / Σy and var(R) = k / (k - 1) · Σ(x - R·y)² / (Σy)².
    """
    import numpy as np

    x = np.bincount(example_ids, weights=above)  # [examples]
    y = np.bincount(example_ids, weights=below)  # [examples]
    k = len(y)
    estimate = x.sum() / y.sum()
    variance = k / (k - 1) * ((x - estimate * y) ** 2).sum()
    stderr = math.sqrt(variance) / abs(y.sum())
    return {"value": float(estimate), "stderr": float(stderr), "n": k}


def token_mean(values: Any, example_ids: Any) -> dict[str, Any]:
    """Return the mean over tokens, as the ratio of their sum to their number."""
    return ratio(values, [1.0] * len(values), example_ids)
