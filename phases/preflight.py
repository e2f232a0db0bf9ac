"""Before any work: everything that will be digested equals HEAD, and the machine can record an outcome."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from phases import durable, prd
from phases.errors import EnvironmentFaultError, UsageError
from phases.paths import Paths
from phases.prd import Feature, Phase, Prd
from phases.repo import Repo

FREE_BYTES = 1 << 30
"""Room that staging, artifacts and gate copies of a feature need at least."""


def code_files(repo: Repo, commit: str, prd_: Prd, module: str) -> dict[str, str]:
    """Tracked `*.py` and YAML of the module's top package without results: path -> git blob id."""
    package = module.split(".", 1)[0]
    files = repo.files(commit, package)
    results = prd_.results + "/"
    return {
        path: blob
        for path, blob in files.items()
        if path.endswith((".py", ".yaml", ".yml")) and not path.startswith(results)
    }


def digested_paths(repo: Repo, prd_: Prd, phase: Phase, feature: Feature | None) -> list[str]:
    """Repository paths whose committed bytes a run of this feature (or of the exit gates) is judged by."""
    features = phase.features if feature is None else (feature,)
    paths = {"prd", "gates", "constraints.txt", *_named_files(repo, prd_, phase, feature)}
    for item in features:
        paths |= set(code_files(repo, "HEAD", prd_, item.module)) if item.module else set()
        paths |= {given.path for given in map(prd_.input, item.inputs) if not given.is_cached}
    return sorted(paths)


def check_repository(repo: Repo) -> None:
    """A state of the repository in which a commit of ours would be a surprise is refused."""
    operation = repo.unfinished()
    if operation:
        raise EnvironmentFaultError(
            f"a {operation} is in progress in this work tree",
            remedy=f"finish it or abort it (git {operation} --abort), then run again",
        )
    if repo.branch() is None:
        raise UsageError(
            "HEAD is detached: a commit made here would belong to no branch",
            remedy="git switch -c my-branch, then run again",
        )
    problem = repo.identity_problem()
    if problem:
        raise EnvironmentFaultError(
            f"git has no identity to commit with: {problem.splitlines()[0]}",
            remedy='git config user.name "…"; git config user.email "…"',
        )


def check_equals_head(repo: Repo, prd_: Prd, phase: Phase, feature: Feature | None) -> None:
    """Uncommitted changes to what will be digested are refused: a receipt must name bytes that are in a commit."""
    tracked = set(repo.files("HEAD", "."))
    dirty = repo.changed("HEAD", digested_paths(repo, prd_, phase, feature))
    new = [path for path in _named_files(repo, prd_, phase, feature) if path not in tracked]
    if dirty or new:
        listing = "".join(f"\n  {path} (changed)" for path in dirty) + "".join(
            f"\n  {path} (not in HEAD)" for path in new
        )
        raise EnvironmentFaultError(
            "what this run is judged by differs from HEAD:" + listing,
            remedy="commit these files (or git stash them), then run again",
        )


def _named_files(repo: Repo, prd_: Prd, phase: Phase, feature: Feature | None) -> list[str]:
    """Files that must be tracked: modules, configs, gates and the plan itself."""
    features = phase.features if feature is None else (feature,)
    gates = (*phase.entry, *phase.exit, *(item.gate for item in features))
    files = [prd.find(repo.root).relative_to(repo.root).as_posix()]
    files += [gate.pytest for gate in gates if gate.pytest]
    files += [item.config for item in features if item.config]
    for item in features:
        found = prd.module_file(repo.root, item.module) if item.module else None
        files += [found.relative_to(repo.root).as_posix()] if found else []
    return sorted(set(files))


def check_publish(repo: Repo, targets: Sequence[str]) -> None:
    """A place that outputs are published to must not hold a person's uncommitted work."""
    dirty = [*repo.changed("HEAD", targets), *repo.untracked(targets)] if targets else []
    if dirty:
        raise EnvironmentFaultError(
            f"{dirty[0]} has uncommitted changes and would be overwritten by this feature",
            remedy=f"commit or move {dirty[0]}, then run again",
        )


def check_machine(paths: Paths) -> None:
    """Room on the disk, and folders that can be written: found out before an hour of work, not after it."""
    free = shutil.disk_usage(paths.root).free
    if free < FREE_BYTES:
        raise EnvironmentFaultError(
            f"{paths.root}: {free / 1e9:.1f} GB free, wanted at least {FREE_BYTES / 1e9:.1f} GB",
            remedy="free space there, then run again",
        )
    for folder in (paths.private, paths.journal.parent, paths.root / paths.results_name):
        probe = folder / ".writable"
        durable.write(probe, b"")
        durable.remove(probe)
