"""The inputs of an earlier run, found again among the inputs of this one."""

from __future__ import annotations

import functools
import hashlib
import json
import os
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
            if "gitObject" in digests:
                path = _tracked(code, name, planned, digests["gitObject"])
            else:
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


def _tracked(code: Path, name: str, planned: Mapping[str, str], expected: str) -> Path:
    """Return the file or folder of the commit that the plan names as an input."""
    path = code / planned.get(name, name)
    if not path.exists() or git_object(path) != expected:
        msg = f"its input {name} is not the git object {expected} in the code of its commit"
        raise ContractError(msg)
    return path


def git_object(path: Path) -> str:
    """Return the id that git gives a file, or a folder of files and folders, without links."""
    if path.is_file():
        return _git_hash("blob", path.read_bytes())
    entries = {}
    for child in path.iterdir():
        mode = "100755" if os.access(child, os.X_OK) else "100644"
        # git sorts a folder as if its name ended with a slash
        key = child.name
        if child.is_dir():
            mode, key = "40000", f"{child.name}/"
        identifier = bytes.fromhex(git_object(child))
        entries[os.fsencode(key)] = f"{mode} {child.name}\0".encode() + identifier
    return _git_hash("tree", b"".join(entries[key] for key in sorted(entries)))


def _git_hash(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def _untracked(ctx: Context, name: str, digests: Mapping[str, str]) -> Path:
    """Return the folder of an input that no commit has, such as a model."""
    folder = ctx.inputs.path(name)
    for key, expected in digests.items():
        path = folder / key.removeprefix("sha256:")
        if path.is_file() and _digest_of_once(path) != expected:
            msg = f"its input {name} is another one: {path.name} has not the digest {expected}"
            raise ContractError(msg)
    return folder


# Most features read the same model: its digest is computed once for all of them.
_digest_of_once = functools.cache(digest_of)
