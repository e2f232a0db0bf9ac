"""A run to compare: the results of all its features, found in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.verified import RESULT, UnverifiedError, VerifiedResult, read_verified

RESULTS = Path("lab/results")
PLACES = (Path(), RESULTS, Path("results"))  # where a folder may have its results
AUDIT = "python -m phases audit"
SAMPLE = "sample run"  # what the entry GENESIS of such a ledger says


class CompareError(Exception):
    """There is nothing to compare; the message says why, and `hint` what to type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Run:
    """The results of a run.

    folder: that has a folder for each feature; features: by id; is_sample: whether its plan or its
    ledger calls it a sample run, which a script made and no human approved.
    """

    folder: Path
    features: Mapping[str, VerifiedResult]
    is_sample: bool


def read_run(root: Path, name: str) -> Run:
    """Return the run of a clone, a folder of results, or what is laid out like them.

    name: what the folder is called in messages.

    Raises:
        CompareError: there is no result, or one cannot be relied on.
    """
    # 1. Where the results are.
    folders: list[Path] = []
    for place in PLACES:
        folders = sorted(path.parent for path in (root / place).glob(f"*-*/{RESULT}"))
        if folders:
            break
    if not folders:
        what = "has no results" if root.is_dir() else "is no folder"
        msg = (
            f"{name} {root} {what}; expected FEATURE/{RESULT} in it, in {RESULTS}/ or in results/ "
            "below it"
        )
        raise CompareError(msg, "python -m lab compare --help")

    # 2. The results, each with its receipt.
    features = {}
    for folder in folders:
        try:
            features[folder.name] = read_verified(folder)
        except UnverifiedError as error:
            raise CompareError(f"{name}: {error}", AUDIT) from error
    return Run(folders[0].parent, features, is_sample(root, folders[0].parent))


def is_sample(root: Path, folder: Path) -> bool:
    """Return whether a plan or a ledger beside the results says that it is a sample run.

    They are looked for from the results up to the folder that was named, and in what is called
    `results` or is below lab/ in the folders above it.
    """
    bases = {root, folder, folder.parent}
    if folder.parts[-2:] == RESULTS.parts or folder.resolve().parts[-2:] == RESULTS.parts:
        bases.add(folder.resolve().parents[1])
    for base in bases:
        if _ledger_is_sample(base / "progress.txt"):
            return True
        for path in (*base.glob("*.json"), *base.glob("prd/*.json")):
            if _plan_is_sample(path):
                return True
    return False


def _ledger_is_sample(path: Path) -> bool:
    """Return whether the first entry of a ledger, GENESIS, speaks of a sample run."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        return False
    genesis = text.partition("· GENESIS\n")[2].partition("\n### ")[0]
    return SAMPLE in genesis


def _plan_is_sample(path: Path) -> bool:
    """Return whether a file is a plan that calls itself a sample."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    is_plan = isinstance(document, dict) and "phases" in document
    return is_plan and document.get("sample") is True
