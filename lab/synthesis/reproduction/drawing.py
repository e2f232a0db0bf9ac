"""The draw: which features are computed again. The experiment has no choice in it.

The ids of all features that are given are ordered by the SHA-256 of "STARTED ID", where STARTED is
the hash of this attempt's STARTED entry, which did not exist when code and plan were committed. The
first ones that can be computed again are drawn. Whether one can follows from its receipt alone: the
commit that it names has a module `replay` in the topic, or the run took a few seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.contract import Context, ContractError
from lab.digests import sha256
from lab.synthesis.reproduction import rebuilding
from lab.synthesis.reproduction.measured import Candidate, Draw, Way
from lab.synthesis.reproduction.receipts import Receipt, code_digest, read_receipt

VARIABLE = "PHASES_STARTED"
BY_HAND = 64 * "0"


def draw_features(ctx: Context) -> Draw:
    """Return the draw of this run; by hand and in a scratch run it is made with zeros.

    Raises:
        ContractError: no feature can be computed again.
    """
    started = os.environ.get(VARIABLE, "")
    features = [
        name for name, entry in ctx.inputs.entries.items() if entry.get("kind") == "feature"
    ]
    candidates = []
    for feature in ordered(started or BY_HAND, features):
        candidates.append(examine(ctx, feature))
    drawn = [candidate for candidate in candidates if candidate.way is not None]
    if not drawn:
        reasons = "; ".join(f"{one.feature}: {one.reason}" for one in candidates) or "none given"
        msg = f"no feature can be computed again ({reasons}); give receipts and code of a record"
        raise ContractError(msg)
    return Draw(
        started=started or BY_HAND,
        is_of_an_attempt=bool(started),
        candidates=tuple(candidates),
        drawn=tuple(drawn[: ctx.config["features"]]),
    )


def ordered(started: str, features: list[str]) -> list[str]:
    """Return the features in the order of a draw."""
    return sorted(features, key=lambda feature: sha256(f"{started} {feature}".encode()))


def examine(ctx: Context, feature: str) -> Candidate:
    """Return whether and how a feature can be computed again."""
    entry = ctx.inputs.entries[feature]
    try:
        receipt = read_receipt(ctx.inputs.path(feature), str(entry.get("receipt")))
        code = code_folder(feature, entry, receipt)
        rebuilding.inputs_of(ctx, receipt, code)
    except ContractError as error:
        return Candidate(feature, None, str(error))

    # Its topic's replay in that commit; or all of it, where that takes no longer.
    if replay_file(code, receipt.module).is_file():
        return Candidate(feature, Way.REPLAY)
    if receipt.seconds <= ctx.config["whole_seconds"]:
        return Candidate(feature, Way.WHOLE)
    reason = f"its commit has no replay, and the whole run took {receipt.seconds:.0f} s"
    return Candidate(feature, None, reason)


def code_folder(feature: str, entry: Mapping[str, Any], receipt: Receipt) -> Path:
    """Return the folder with the code of a feature's receipt.

    Raises:
        ContractError: it is not given, or its code is not the receipt's.
    """
    if "code" not in entry:
        msg = "the code of its commit is not given"
        raise ContractError(msg)
    commit = receipt.dependencies["git"]["gitCommit"]
    if entry.get("commit") != commit:
        msg = f"the code given for {feature} is of commit {entry.get('commit')}, not of {commit}"
        raise ContractError(msg)
    code = Path(entry["code"])
    expected = receipt.dependencies["code:lab"]["sha256"]
    actual = code_digest(code)
    if actual != expected:
        msg = (
            f"the code given for {feature} has the digest {actual}; its receipt names "
            f"{expected}, so it was not run"
        )
        raise ContractError(msg)
    return code


def replay_file(code: Path, module: str) -> Path:
    """Return where the replay of an experiment's topic is, in a folder with the code of a commit.

    Of `lab.qlora.experiment` it is lab/qlora/replay.py.
    """
    topic = module.rpartition(".")[0]
    return code.joinpath(*topic.split(".")) / "replay.py"
