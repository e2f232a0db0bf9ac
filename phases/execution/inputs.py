"""What a feature is given: pinned files in the cache, tracked paths, and the outputs of features that it needs.

The runner resolves them, checks their digests before and after use, and names them in one JSON file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable, strict_json
from phases.base.paths import Paths, cache_dir, is_artifact
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.git.repo import Repo
from phases.plan.schema import CACHE_PREFIX, Feature, Input, Plan
from phases.record.receipt import subjects
from phases.record.state import FeatureStatus, State


@dataclass(frozen=True)
class ResolvedInput:
    """One input as the experiment and the gate see it."""

    name: str
    kind: str
    """`input` or `feature`."""
    path: Path
    files: Mapping[str, str]
    """Relative path -> SHA-256 of what decides; empty for a repository path, which must equal HEAD."""
    identity: Mapping[str, str]
    """The digest set that the receipt names."""
    receipt: str | None = None


def resolve_inputs(
    plan: Plan, feature: Feature, state: State, paths: Paths, repo: Repo, folder: Path
) -> tuple[ResolvedInput, ...]:
    """Finds every input of a feature; outputs of needed features are laid out as copies below `folder`."""
    given = [
        cached_input(item) if item.is_cached else tracked_input(item, paths, repo)
        for item in map(plan.input, feature.inputs)
    ]
    states = {item.id: item for phase in state.phases for item in phase.features}
    given += [_needed(states[need], paths, folder / need) for need in feature.needs]
    return tuple(given)


def check_inputs(given: Sequence[ResolvedInput]) -> None:
    """Hashes the files that decide; EnvironmentFaultError names the first that is missing or differs."""
    for item in given:
        for name, wanted in item.files.items():
            path = item.path / name if item.path.is_dir() else item.path
            if not path.is_file():
                raise EnvironmentFaultError(
                    f"input {item.name}: {path} is missing",
                    hint="the phase's setup fetches it: python -m phases run --next",
                )
            met = durable.sha256_file(path)
            if met != wanted:
                raise EnvironmentFaultError(
                    f"input {item.name}: {path} has sha256 {met}, the PRD wants {wanted}",
                    hint=f"delete {item.path} and run again; setup fetches it anew",
                )


def encode_inputs(given: Sequence[ResolvedInput]) -> bytes:
    """The file of `--inputs` and `PHASES_INPUTS`."""
    entries = {}
    for item in given:
        entry = {"kind": item.kind, "path": str(item.path)}
        if item.receipt:
            entry["receipt"] = f"sha256:{item.receipt}"
        entries[item.name] = entry
    return (json.dumps(entries, indent=1) + "\n").encode()


def lay_out_outputs(
    paths: Paths, feature: str, receipt_sha256: str | None, target: Path
) -> dict[str, str]:
    """Copies a verified feature's outputs into `target` in their original shape; returns path -> SHA-256.

    Raises:
        IntegrityError: the receipt or a result is not what the ledger and the receipt say.
        EnvironmentFaultError: an artifact is not in this machine's store.
    """
    home = paths.root / paths.results(feature)
    receipt_path = home / "receipt.json"
    data = receipt_path.read_bytes() if receipt_path.is_file() else b""
    if receipt_sha256 is None or durable.sha256(data) != receipt_sha256:
        raise IntegrityError(
            "receipt-changed", f"{receipt_path} is not the receipt that the ledger names"
        )
    outputs = subjects(strict_json.loads(data))
    for name, digest in outputs.items():
        source = paths.artifact(digest) if is_artifact(name) else home / name
        if not source.is_file():
            if is_artifact(name):
                raise EnvironmentFaultError(
                    f"{feature}: artifact {name} (sha256 {digest[:12]}…) is not on this machine",
                    hint="copy .phases/artifacts/ from the machine that has it",
                )
            raise IntegrityError("result-missing", f"{source} is gone; the receipt names it")
        durable.make_folder((target / name).parent)
        (target / name).write_bytes(source.read_bytes())
        if durable.sha256_file(target / name) != digest:
            raise IntegrityError(
                "result-changed", f"{source} is not what the receipt names (sha256 {digest[:12]}…)"
            )
    return outputs


def cached_input(item: Input) -> ResolvedInput:
    """An input that lies in the user's cache."""
    path = cache_dir() / item.path.removeprefix(CACHE_PREFIX)
    return ResolvedInput(
        item.name,
        "input",
        path,
        dict(item.sha256),
        {f"sha256:{name}": digest for name, digest in item.sha256.items()},
    )


def tracked_input(item: Input, paths: Paths, repo: Repo) -> ResolvedInput:
    """An input that is a path of the repository."""
    identity = repo.object_id("HEAD", item.path)
    if identity is None:
        raise EnvironmentFaultError(
            f"input {item.name}: {item.path} is not in HEAD",
            hint=f"git add {item.path}, then commit",
        )
    return ResolvedInput(item.name, "input", paths.root / item.path, {}, {"gitObject": identity})


def _needed(feature: FeatureStatus, paths: Paths, target: Path) -> ResolvedInput:
    if feature.state == "waived" or feature.receipt is None:
        raise EnvironmentFaultError(
            f"{feature.id} is {feature.state} and has no verified results to give",
            hint=f"python -m phases run --feature {feature.id}",
        )
    files = lay_out_outputs(paths, feature.id, feature.receipt, target)
    return ResolvedInput(
        feature.id, "feature", target, files, {"sha256": feature.receipt}, feature.receipt
    )
