"""This machine as the verified result of FEAT-017 has it, for whoever asks without measuring."""

from __future__ import annotations

import json
from pathlib import Path

from lab.digests import sha256
from lab.hardware.feasibility import Machine

FEATURE = "FEAT-017"
RESULTS = Path(__file__).resolve().parents[1] / "results"
KEY = "machine"  # of the result's environment


class VerifiedError(Exception):
    """A result is there and cannot be relied on; the message says why."""


def this_machine(results: Path = RESULTS) -> tuple[Machine, str] | None:
    """Return this machine and its receipt's SHA-256; None if there is no result.

    Raises:
        VerifiedError: the result has no receipt, is not the one of its receipt, or can't be read.
    """
    folder = results / FEATURE
    if not (folder / "result.json").is_file():
        return None
    try:
        result, receipt = (folder / name for name in ("result.json", "receipt.json"))
        subject = json.loads(receipt.read_bytes())["subject"]
        digests = {item["name"]: item["digest"]["sha256"] for item in subject}
        raw = json.loads(result.read_bytes())["environment"][KEY]
        if digests.get("result.json") != sha256(result.read_bytes()):
            msg = f"{result} is not the one that its receipt names: it was changed since"
            raise VerifiedError(msg)
        return Machine.from_json(raw), sha256(receipt.read_bytes())
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{folder}: result or receipt cannot be read ({type(error).__name__}: {error})"
        raise VerifiedError(msg) from error
