"""The inputs of an earlier run, found again among the inputs of this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.contract import Context, ContractError
from lab.digests import digest_of
from lab.synthesis.reproduction.receipts import Receipt

FEATURE, INPUT = "feature:", "input:"


def inputs_of(ctx: Context, receipt: Receipt, code: Path) -> dict[str, dict[str, Any]]:
    """Return what the run of a receipt was given, as the file of --inputs has it.

    Features are the folders that this run was given, if they have the receipts of that time;
    tracked inputs are files of the commit, others this run's.

    Raises:
        ContractError: an input is not given, or is another one than that of the receipt.
    """
    planned = _planned_inputs(receipt, code)
    entries: dict[str, dict[str, Any]] = {}
    for uri, digests in receipt.dependencies.items():
        if uri.startswith(FEATURE):
            name = uri.removeprefix(FEATURE)
            entries[name] = _feature(ctx, name, digests["sha256"])
        elif uri.startswith(INPUT):
            name = uri.removeprefix(INPUT)
            path = code / planned.get(name, name)
            if planned.get(name, "$").startswith("$"):
                path = _untracked(ctx, name, digests)
            entries[name] = {"kind": "input", "path": str(path)}
    return entries


def _planned_inputs(receipt: Receipt, code: Path) -> dict[str, str]:
    """Return name -> path of the inputs in the plan of the commit."""
    for uri in receipt.dependencies:
        if uri.startswith("prd/") and (code / uri).is_file():
            plan = json.loads((code / uri).read_text("utf-8"))
            return {one["name"]: one["path"] for one in plan.get("inputs", [])}
    return {}


def _feature(ctx: Context, name: str, receipt: str) -> dict[str, Any]:
    """Return the entry of a feature that the run needed."""
    given = ctx.inputs.entries.get(name, {}).get("receipt")
    if given != f"sha256:{receipt}":
        msg = f"its input {name} had the receipt sha256:{receipt}; given is {given}"
        raise ContractError(msg)
    return {"kind": "feature", "path": str(ctx.inputs.path(name)), "receipt": given}


def _untracked(ctx: Context, name: str, digests: Mapping[str, str]) -> Path:
    """Return the folder of an input that no commit has, such as a model."""
    folder = ctx.inputs.path(name)
    for key, expected in digests.items():
        path = folder / key.removeprefix("sha256:")
        if path.is_file() and digest_of(path) != expected:
            msg = f"its input {name} is another one: {path.name} has not the digest {expected}"
            raise ContractError(msg)
    return folder
