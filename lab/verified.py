"""A feature's result with the receipt that names it, read from a folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.digests import sha256
from lab.result import Measurement

RESULT, RECEIPT = "result.json", "receipt.json"
SAMPLE_ASSURANCE = "assurance: scripted (sample run, approved by no human)"
"""What the runner says first of a sample run."""


class UnverifiedError(Exception):
    """A result cannot be read, or is not the one of its receipt; the message says which."""


class MissingResultError(UnverifiedError):
    """A result or its receipt is not there."""


@dataclass(frozen=True)
class VerifiedResult:
    """What a feature measured, and the receipt that names it.

    result, receipt: the parsed documents; receipt_digest: SHA-256 (hex) of the receipt's bytes.
    """

    measurements: Mapping[str, Measurement]
    result: Mapping[str, Any]
    receipt: Mapping[str, Any]
    receipt_digest: str


def read_verified(folder: Path) -> VerifiedResult:
    """Return the result of a folder.

    Raises:
        MissingResultError: result or receipt is not there.
        UnverifiedError: one cannot be read, or the receipt names another result.
    """
    # 1. Both files must be there.
    result_path, receipt_path = folder / RESULT, folder / RECEIPT
    for path in (result_path, receipt_path):
        if not path.is_file():
            msg = f"{path} does not exist: {folder.name} has no verified result"
            raise MissingResultError(msg)

    # 2. Both must be readable.
    try:
        result_bytes, receipt_bytes = result_path.read_bytes(), receipt_path.read_bytes()
        result, receipt = json.loads(result_bytes), json.loads(receipt_bytes)
        digests = {item["name"]: item["digest"]["sha256"] for item in receipt["subject"]}
        measurements = {}
        for name, raw in result["measurements"].items():
            measurements[name] = Measurement.from_json(raw)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{folder}: result or receipt cannot be read ({type(error).__name__}: {error})"
        raise UnverifiedError(msg) from error

    # 3. The receipt must name this result.
    digest = sha256(result_bytes)
    if digests.get(RESULT) != digest:
        expected = str(digests.get(RESULT, f"no {RESULT}"))[:12]
        msg = (
            f"{result_path} has sha256 {digest[:12]}…, its receipt names {expected}…: it was "
            "changed since"
        )
        raise UnverifiedError(msg)
    return VerifiedResult(measurements, result, receipt, sha256(receipt_bytes))
