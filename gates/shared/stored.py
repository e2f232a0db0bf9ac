"""Stored arrays, rows and headers of a judged run, and what was computed from them before.

Needs numpy and no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gates.shared import outputs

_KNOWN: dict[tuple[str, str], Any] = {}


def cached(name: str, files: Iterable[str], compute: Callable[[], Any]) -> Any:
    """Give `outputs.cached`, once per process: who runs the gate by hand has no cache folder."""
    key = (str(outputs.out()), name)
    if key not in _KNOWN:
        _KNOWN[key] = outputs.cached(name, files, compute)
    return _KNOWN[key]


def config() -> dict[str, Any]:
    """Give the settings that the run says it used."""
    found: dict[str, Any] = outputs.result()["environment"]["config"]
    return found


def artifact(name: str) -> Path:
    """Give the path of a stored file."""
    return outputs.out() / "artifacts" / name


def rows(name: str) -> list[dict[str, Any]]:
    """Give the examples of a frozen set (train, control, evaluation)."""
    return [json.loads(line) for line in artifact(f"{name}.jsonl").read_text("utf-8").splitlines()]


def supervised(row: dict[str, Any]) -> int:
    """Give the number of tokens of an example that the loss counts: labelled, and not the first."""
    return sum(label != -100 for label in row["labels"][1:])


def header(path: Path) -> dict[str, dict[str, Any]]:
    """Give name -> {"dtype", "shape"} of a safetensors file, from its header alone."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        found: dict[str, dict[str, Any]] = json.loads(file.read(size))
    found.pop("__metadata__", None)
    return found


def arrays(name: str) -> dict[str, Any]:
    """Give the arrays of artifacts/NAME.safetensors; an array that is not finite is refused."""
    import numpy as np
    from safetensors.numpy import load_file

    found: dict[str, Any] = load_file(artifact(f"{name}.safetensors"))
    for key, array in found.items():
        assert np.isfinite(array).all(), (
            f"{name}.safetensors: {key} holds a value that is not finite"
        )
    return found


def ratio(above: Any, below: Any, example_ids: Any) -> dict[str, Any]:
    """Give Σ above / Σ below over tokens with its linearised standard error.

    Examples are the independent units.
    """
    import numpy as np

    x, y = np.bincount(example_ids, weights=above), np.bincount(example_ids, weights=below)
    found, k = x.sum() / y.sum(), len(y)
    variance = k / (k - 1) * ((x - found * y) ** 2).sum()
    return {"value": float(found), "stderr": float(math.sqrt(variance) / abs(y.sum())), "n": k}


def token_mean(values: Any, example_ids: Any) -> dict[str, Any]:
    """Give the mean over tokens, as the ratio of their sum to their number."""
    return ratio(values, [1.0] * len(values), example_ids)
