"""The inputs of a feature: pinned files in the cache, tracked paths, outputs of features it needs.

The runner resolves them, checks their digests before and after use, and names them in one JSON
file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from phases.base import durable
from phases.base.paths import Paths, cache_dir, is_artifact
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.git.tree import Layout, Tree
from phases.git.way_back import result_way
from phases.plan.schema import CACHE_PREFIX, Input, Plan
from phases.record.receipt import Receipt
from phases.record.state import FeatureStatus, State
from phases.record.statement import DocumentError
from phases.record.states import FeatureState

RECEIPT = "receipt.json"


class InputKind(StrEnum):
    """Where an input comes from: the plan's inputs, or another feature's outputs."""

    INPUT = "input"
    FEATURE = "feature"


@dataclass(frozen=True)
class ResolvedInput:
    """One input as the experiment and the gate see it."""

    name: str
    kind: InputKind
    path: Path
    files: Mapping[str, str]
    """Relative path -> SHA-256 of what decides; of a single file its own path."""
    identity: Mapping[str, str]
    """The digest set that the receipt names."""
    receipt: str | None = None
    commit: str | None = None
    """Of a feature: the commit that its receipt names."""
    code: Path | None = None
    """A folder with the code of that commit; see `code_of_needs` in the plan."""


def resolve_inputs(
    plan: Plan,
    *,
    names: Sequence[str],
    needs: Sequence[str],
    state: State,
    paths: Paths,
    tree: Tree,
    layout: Layout,
    folder: Path,
) -> tuple[ResolvedInput, ...]:
    """Find inputs by name; copy the outputs of needed features below `folder`.

    Tracked inputs are those of `tree`, where `layout` has them.
    """
    resolved = []
    for name in names:
        item = plan.input(name)
        is_cached = item.is_cached
        resolved.append(cached_input(item) if is_cached else tracked_input(item, tree, layout))
    for need in needs:
        resolved.append(_needed_feature(state.features[need], paths, folder / need))
    return tuple(resolved)


def cached_input(item: Input) -> ResolvedInput:
    """Return an input that is in the user's cache.

    The plan names the digests of the files that decide. Other files of the folder are hashed as
    they are, since an experiment can read them too.
    """
    path = cache_dir() / item.path.removeprefix(CACHE_PREFIX)
    files = dict(item.sha256)
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if name not in files and file.is_file():
            files[name] = durable.sha256_file(file)
    return ResolvedInput(
        name=item.name,
        kind=InputKind.INPUT,
        path=path,
        files=files,
        identity={f"sha256:{_utf8(name)}": digest for name, digest in files.items()},
    )


def _utf8(name: str) -> str:
    """Return a name in which bytes that are no UTF-8 are written out: a receipt has no other."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def tracked_input(item: Input, tree: Tree, layout: Layout) -> ResolvedInput:
    """Return an input that is a path of the repository."""
    path = item.tracked_path
    identity = tree.identity(path)
    if identity is None:
        raise EnvironmentFaultError(
            f"input {item.name}: {path} is not in commit {tree.commit[:12]}",
            hint=f"git add {path}, then commit",
        )
    if path in layout.links:
        raise EnvironmentFaultError(
            f"input {item.name}: {path} is a symbolic link",
            hint=f"name what it leads to in the plan: {layout.links[path]}",
        )
    files = {}
    for name, digest in layout.below(path).items():
        files[name.removeprefix(f"{path}/")] = digest
    return ResolvedInput(
        name=item.name,
        kind=InputKind.INPUT,
        path=layout.folder / path,
        files=files,
        identity=identity,
    )


def _needed_feature(feature: FeatureStatus, paths: Paths, target: Path) -> ResolvedInput:
    if feature.state == FeatureState.WAIVED or feature.receipt is None:
        raise EnvironmentFaultError(
            f"{feature.id} is {feature.state} and has no verified results",
            hint=f"python -m phases run --feature {feature.id}",
        )
    files = {}
    for output in stored_outputs(paths, feature.id, feature.receipt):
        link = target / output.name
        durable.make_folder(link.parent)
        # Artifacts of many features are gigabytes. The store's files are read-only, and what was
        # changed all the same is found by its digest.
        if is_artifact(output.name):
            link.symlink_to(output.source)
        else:
            output.copy(link)
        files[output.name] = output.sha256
    receipt = (paths.root / paths.results(feature.id) / RECEIPT).read_bytes()
    (target / RECEIPT).write_bytes(receipt)
    return ResolvedInput(
        name=feature.id,
        kind=InputKind.FEATURE,
        path=target,
        files=files | {RECEIPT: feature.receipt},
        identity={"sha256": feature.receipt},
        receipt=feature.receipt,
    )


def check_inputs(inputs: Sequence[ResolvedInput]) -> None:
    """Hash the files that decide; EnvironmentFaultError names the first missing or changed one."""
    for item in inputs:
        for name, expected in item.files.items():
            path = item.path / name if item.path.is_dir() else item.path
            if not path.is_file():
                raise EnvironmentFaultError(
                    f"input {item.name}: {path} is missing",
                    hint="the phase's setup fetches it: python -m phases run --next",
                )
            actual = durable.sha256_file(path)
            if actual != expected:
                raise EnvironmentFaultError(
                    f"input {item.name}: {path}: got sha256 {actual}; expected {expected}",
                    hint=f"delete {item.path} and run again; it is fetched or copied anew",
                )


def encode_inputs(inputs: Sequence[ResolvedInput]) -> bytes:
    """Return the file of `--inputs` and `PHASES_INPUTS`."""
    document = {}
    for item in inputs:
        fields = {"kind": item.kind.value, "path": str(item.path)}
        if item.receipt:
            fields["receipt"] = f"sha256:{item.receipt}"
        if item.code and item.commit:
            fields |= {"code": str(item.code), "commit": item.commit}
        document[item.name] = fields
    return (json.dumps(document, indent=1) + "\n").encode()


@dataclass(frozen=True)
class StoredOutput:
    """One output of a verified feature: an artifact in the store, or a committed result."""

    name: str
    source: Path
    sha256: str

    def copy(self, target: Path) -> None:
        """Copy it to `target`, whose folder is made."""
        durable.make_folder(target.parent)
        target.write_bytes(self.source.read_bytes())


def stored_outputs(
    paths: Paths, feature: str, receipt_sha256: str | None
) -> tuple[StoredOutput, ...]:
    """Return the outputs of a verified feature, each where it is stored and checked by its digest.

    Raises:
        IntegrityError: the receipt or a result is not what the ledger and the receipt say.
        EnvironmentFaultError: an artifact is not in this machine's store.
    """
    # 1. The receipt that the ledger names.
    results = paths.root / paths.results(feature)
    receipt_path = results / RECEIPT
    data = receipt_path.read_bytes() if receipt_path.is_file() else b""
    if receipt_sha256 is None or durable.sha256(data) != receipt_sha256:
        message = f"{receipt_path} is not the receipt that the ledger names"
        raise _result_error(paths, feature, "receipt-changed", message)
    try:
        digests = Receipt.decode(data).digests
    except DocumentError as error:
        message = f"{receipt_path} is not a receipt: {error}"
        raise IntegrityError("receipt-changed", message) from None

    # 2. Each output by its digest: artifacts from the store, the rest from the results.
    outputs = []
    for name, digest in digests.items():
        source = paths.artifact(digest) if is_artifact(name) else results / name
        if not source.is_file():
            raise _missing_output(paths, feature, name, digest)
        if durable.sha256_file(source) != digest:
            raise _changed_output(paths, feature, source, name=name, digest=digest)
        outputs.append(StoredOutput(name, source, digest))
    return tuple(outputs)


def copy_outputs(
    paths: Paths, feature: str, receipt_sha256: str | None, target: Path
) -> dict[str, str]:
    """Copy a verified feature's outputs into `target` in their original shape.

    Return path -> SHA-256.

    Raises:
        IntegrityError, EnvironmentFaultError: see `stored_outputs`.
    """
    outputs = stored_outputs(paths, feature, receipt_sha256)
    for output in outputs:
        output.copy(target / output.name)
    return {output.name: output.sha256 for output in outputs}


def _missing_output(
    paths: Paths, feature: str, name: str, digest: str
) -> EnvironmentFaultError | IntegrityError:
    if is_artifact(name):
        return EnvironmentFaultError(
            f"{feature}: artifact {name} (sha256 {digest[:12]}…) is not on this machine",
            hint="copy .phases/artifacts/ from the machine that has it",
        )
    message = f"{paths.root / paths.results(feature) / name} is gone; the receipt names it"
    return _result_error(paths, feature, "result-missing", message)


def _changed_output(
    paths: Paths, feature: str, source: Path, *, name: str, digest: str
) -> IntegrityError:
    message = f"{source} is not what the receipt names (sha256 {digest[:12]}…)"
    if is_artifact(name):
        hint = f"replace it by {name} of {feature} from a machine that has it, or from a backup"
        return IntegrityError("result-changed", message, hint=hint)
    return _result_error(paths, feature, "result-changed", message)


def _result_error(paths: Paths, feature: str, code: str, message: str) -> IntegrityError:
    """Return the error for a feature's results, with the command that restores them."""
    way = result_way(paths.root, paths.results_name, f"{paths.results(feature)}/{RECEIPT}")
    hint = f"{way}; python -m phases audit lists all of it" if way else "python -m phases audit"
    return IntegrityError(code, message, hint=hint)
