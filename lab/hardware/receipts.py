"""What the verified experiments took, from the receipts that the runner wrote of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.contract import ContractError, Inputs
from lab.digests import digest_of
from lab.hardware.measured import Receipt

FILE = "receipt.json"


def read_receipts(inputs: Inputs) -> tuple[Receipt, ...]:
    """Return the receipt of each feature among the inputs, in the order of their ids.

    Raises:
        ContractError: a receipt is missing, or is not the one that the inputs name.
    """
    features = {
        name: entry for name, entry in inputs.entries.items() if entry.get("kind") == "feature"
    }
    return tuple(
        _read(name, inputs.path(name), str(features[name].get("receipt")))
        for name in sorted(features)
    )


def _read(feature: str, folder: Path, stated: str) -> Receipt:
    path = folder / FILE
    if not path.is_file():
        msg = f"feature {feature}: {path} is missing; give the folder of a verified result"
        raise ContractError(msg)
    digest = f"sha256:{digest_of(path)}"
    if digest != stated:
        msg = f"feature {feature}: its receipt has the digest {digest}; the inputs name {stated}"
        raise ContractError(msg)
    process = _process(json.loads(path.read_text("utf-8")), feature)
    return Receipt(
        feature=feature,
        title=json.loads((folder / "result.json").read_text("utf-8"))["title"],
        digest=digest,
        seconds=float(process["seconds"]),
        cpu_seconds=float(process["cpuSeconds"]),
        peak_bytes=int(process["peakMemoryBytes"]),
    )


def _process(statement: Mapping[str, Any], feature: str) -> Mapping[str, Any]:
    for product in statement["predicate"]["runDetails"]["byproducts"]:
        if product["name"] == "process":
            content: Mapping[str, Any] = product["content"]
            return content
    msg = f"feature {feature}: its receipt says nothing of the process"
    raise ContractError(msg)
