"""What a feature runs of a commit: which files decide, whether all of them can be laid out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from phases.errors import EnvironmentFaultError
from phases.execution import process
from phases.execution.command_line import named_paths
from phases.execution.inputs import ResolvedInput
from phases.git.tree import CommitTree, Layout
from phases.judge.committed_gates import gate_digest
from phases.plan.lock import runner_digest
from phases.plan.schema import Feature, Plan
from phases.record.committed_plan import plan_path
from phases.record.decision_check import APPROVALS
from phases.record.feature_code import Code, code_digest, module_packages
from phases.run.imports import PROBE, package_origins
from phases.run.workspace import Workspace

PROBE_S = 60.0
"""Seconds that Python may take to say where it would import packages from."""


def record_paths(plan: Plan) -> tuple[str, ...]:
    """Return how the paths of the record begin, which no copy of the commit needs to have.

    They are empty where a feature names a file of the record: then it is in the copy.
    """
    record = (f"{plan.results}/", f"{APPROVALS}/", "progress.txt")
    for phase in plan.phases:
        for feature in phase.features:
            paths = [*named_by_feature(plan, feature), (feature.module or "/").replace(".", "/")]
            for name in (path.rstrip("/") for path in record):
                if name in (feature.command or "") or any(_overlap(path, name) for path in paths):
                    return ()
    return record


def named_by_feature(plan: Plan, feature: Feature) -> list[str]:
    """Return the files and folders that a feature names: config and tracked inputs."""
    paths = []
    if feature.config:
        paths.append(PurePosixPath(feature.config).as_posix())
    for name in feature.inputs:
        item = plan.input(name)
        if not item.is_cached:
            paths.append(item.tracked_path)
    return paths


def require_complete(tree: CommitTree, plan: Plan, feature: Feature) -> None:
    """Refuse to run what a copy of the commit does not have: submodules, Git LFS files.

    They are refused where the feature names them, among the gates, and in the packages of its
    module. A command that uses one without naming it finds an empty folder, or the pointer.
    """
    needed = [*named_by_feature(plan, feature), "gates"]
    if feature.module:
        needed += module_packages(tree, feature.module, plan.results)
    words = named_paths(feature.command or "")
    for path, kind in tree.incomplete.items():
        is_in_command = any(f"{word}/".startswith(f"{path}/") and "/" in word for word in words)
        if is_in_command or any(_overlap(path, other) for other in needed):
            raise EnvironmentFaultError(
                f"{path} is {kind}: its content is not in the commit that {feature.id} runs",
                hint="commit the files themselves, or declare them as an input in $PHASES_CACHE "
                "with their digests; then run again",
            )


def _overlap(path: str, other: str) -> bool:
    """Return whether one path is the other, or is below it."""
    return f"{path}/".startswith(f"{other}/") or other.startswith(f"{path}/")


#### where Python imports it from


def code_of_copy(
    workspace: Workspace, layout: Layout, env: Mapping[str, str], feature: Feature, code: Code
) -> Code:
    """Return the code of a module without the folders that Python would not import.

    A folder without `__init__.py` may be no package at all: Python prefers a library of its name.

    Raises:
        EnvironmentFaultError: the module, or a package, would not be imported from the copy.
    """
    copy = layout.folder.resolve()
    top = str(feature.module).partition(".")[0]
    names = [uri.removeprefix("code:") for uri in code]
    imported = {}
    for name, places in _package_origins(workspace, layout, env, names).items():
        outside = [place for place in places if not place.is_relative_to(copy)]
        is_regular = (copy / name / "__init__.py").exists() or (copy / f"{name}.py").exists()
        if (outside and (is_regular or name == top)) or not places:
            raise EnvironmentFaultError(
                f"Python would import {name} from {outside[0] if outside else 'nowhere'}; "
                f"expected the copy of commit {workspace.tree.commit[:12]}",
                hint="give the package an __init__.py or another name; then run again",
            )
        if len(outside) < len(places):
            imported[f"code:{name}"] = code[f"code:{name}"]
    return imported


def _package_origins(
    workspace: Workspace,
    layout: Layout,
    env: Mapping[str, str],
    names: Sequence[str],
) -> dict[str, list[Path]]:
    """Return package -> where Python would import it from, in the experiment's environment."""
    log = workspace.staging.folder / "probe.log"
    result = process.run(
        workspace.sandbox.command(
            [sys.executable, "-c", PROBE, *names],
            writable=[],
            read_only=[layout.folder],
            network=False,
        ),
        cwd=layout.folder,
        env=process.clean_environment(env),
        log=log,
        timeout_s=PROBE_S,
    )
    lines = log.read_text("utf-8", "replace").splitlines()
    if result.exit_code == 0 and lines:
        return package_origins(lines[-1])
    reason = lines[-1] if lines else f"exit {result.exit_code}, signal {result.signal}"
    raise EnvironmentFaultError(
        f"Python cannot say where it would import {', '.join(names)} from: {reason}",
        hint="python -m phases doctor",
    )


#### what the receipt names


def resolve_materials(
    workspace: Workspace,
    tree: CommitTree,
    feature: Feature,
    *,
    layout: Layout,
    code: Code,
    inputs: Sequence[ResolvedInput],
) -> dict[str, Mapping[str, str]]:
    """Return digest sets of everything that goes in: commit, plan, code, config, gate, inputs."""
    # 1. The commit, the plan and the runner.
    plan_file = plan_path(tree.files("prd"))
    materials: dict[str, Mapping[str, str]] = {
        "git": {"gitCommit": tree.commit, "gitTree": tree.id},
        plan_file: {"sha256": layout.digests[plan_file]},
        "runner": {"sha256": runner_digest()},
    }

    # 2. The feature's config, code and gate.
    contents = layout.contents
    if feature.config:
        config = PurePosixPath(feature.config).as_posix()
        materials[feature.config] = {"sha256": contents[config]}
    for uri, paths in code.items():
        materials[uri] = {"sha256": code_digest(paths, contents)}
    gate = feature.gate
    materials[gate.name] = {"sha256": gate_digest(tree, workspace.plan, gate)}

    # 3. Its inputs.
    for item in inputs:
        materials[f"{item.kind}:{item.name}"] = item.identity
    return materials
