"""Before any work: what will be digested equals HEAD, and the machine can record an outcome."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import phases
from phases.base import durable
from phases.base.paths import Paths
from phases.errors import EnvironmentFaultError
from phases.git.checks import read_repository_state, repository_problems
from phases.git.repo import Repo
from phases.plan.load import find_plan, module_file
from phases.plan.schema import Feature, Phase, Plan

LOCK_WAIT_S = 3.0


#### the repository


def check_repository(repo: Repo, *, with_locks: bool = True) -> None:
    """Refuse a repository in which the runner's commit would be impossible or a surprise.

    `with_locks` is off before recovery, which itself removes the locks that are proved to be a
    killed runner's.
    """
    state = read_repository_state(repo.root)
    locks = _remaining_locks(state.locks) if with_locks else ()
    for problem in repository_problems(replace(state, locks=locks)):
        raise problem


def _remaining_locks(locks: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the locks that are still there after a moment; a user's git is mostly quick.

    None is ever removed.
    """
    end = time.monotonic() + LOCK_WAIT_S
    while any(path.exists() for path in locks) and time.monotonic() < end:
        time.sleep(0.05)
    return tuple(path for path in locks if path.exists())


def check_committed_folders(repo: Repo, paths: Paths) -> None:
    """Refuse folders whose files git would not hold byte for byte in this repository."""
    # 1. No part of the paths leads outside or is a repository of its own.
    for name in (paths.results_name, "prd/approvals", "progress.txt"):
        for folder in (Path(name), *Path(name).parents[:-1]):
            path = paths.root / folder
            if path.is_symlink():
                raise EnvironmentFaultError(
                    f"{folder} is a symbolic link; results must be in the repository itself",
                    hint=f"replace {folder} by a folder of its own",
                )
            if (path / ".git").exists():
                raise EnvironmentFaultError(
                    f"{folder} is a repository of its own (it has {folder}/.git); "
                    "what is written there cannot be committed here",
                    hint="name another folder in the plan's field results, "
                    f"or move {folder}/.git away",
                )

    # 2. No attribute makes git store or check out other bytes.
    examples = (f"{paths.results_name}/x/result.json", "progress.txt", "prd/x.json")
    for example, attribute, value in repo.attributes(examples):
        changes_line_ends = attribute == "eol" and value == "crlf"
        filters = attribute != "eol" and value not in ("unspecified", "unset")
        if changes_line_ends or filters:
            pattern = example.rsplit("/", 2)[0]
            if "/" in example:
                pattern += "/**"
            raise EnvironmentFaultError(
                f".gitattributes gives {example} {attribute}={value}: "
                "git would store or check out other bytes than it has",
                hint=f"add `{pattern} -{attribute}` to .gitattributes",
            )


def check_publish(repo: Repo, targets: Sequence[str]) -> None:
    """Refuse where an output would be published over uncommitted work."""
    if not targets:
        return
    dirty = [*repo.changed("HEAD", targets), *repo.untracked(targets)]
    if dirty:
        raise EnvironmentFaultError(
            f"{dirty[0]} has uncommitted changes and would be overwritten by this feature",
            hint=f"commit or move {dirty[0]}, then run again",
        )


#### what is digested


def check_equals_head(repo: Repo, plan: Plan, phase: Phase, feature: Feature | None) -> None:
    """Refuse uncommitted changes to what will be digested: a receipt names bytes of a commit.

    Without `feature`: what the whole phase and its exit gates are judged by.
    """
    features = phase.features if feature is None else (feature,)
    named = _named_files(repo, phase, features)
    changed = repo.changed("HEAD", _digested_paths(repo, plan, features, named))
    tracked = set(repo.files("HEAD", "."))
    untracked = [path for path in named if path not in tracked]
    if changed or untracked:
        listing = "".join(f"\n  {path} (changed)" for path in changed)
        listing += "".join(f"\n  {path} (not in HEAD)" for path in untracked)
        raise EnvironmentFaultError(
            "what this run is judged by differs from HEAD:" + listing,
            hint="commit these files (or git stash them), then run again",
        )


def _digested_paths(
    repo: Repo, plan: Plan, features: Sequence[Feature], named: Sequence[str]
) -> list[str]:
    """Return the repository paths whose committed bytes a receipt or a lock names."""
    paths = {"prd", "gates", "constraints.txt", *_runner_code(repo), *named}
    for feature in features:
        if feature.module:
            paths.update(code_files(repo, "HEAD", plan, feature.module))
        for name in feature.inputs:
            item = plan.input(name)
            if not item.is_cached:
                paths.add(item.path)
    return sorted(paths)


def _named_files(repo: Repo, phase: Phase, features: Sequence[Feature]) -> list[str]:
    """Return the files that must be tracked: the plan itself, gates, configs, modules."""
    paths = {find_plan(repo.root).relative_to(repo.root).as_posix()}
    for gate in (*phase.entry, *phase.exit, *(feature.gate for feature in features)):
        if gate.pytest:
            paths.add(gate.pytest)
    for feature in features:
        if feature.config:
            paths.add(feature.config)
        module = module_file(repo.root, feature.module) if feature.module else None
        if module:
            paths.add(module.relative_to(repo.root).as_posix())
    return sorted(paths)


def _runner_code(repo: Repo) -> list[str]:
    """Return the runner itself if it is imported from this repository: the lock has its digest."""
    package = Path(phases.__file__).resolve().parent
    root = repo.root.resolve()
    if not package.is_relative_to(root):
        return []
    return [package.relative_to(root).as_posix()]


def code_files(repo: Repo, commit: str, plan: Plan, module: str) -> dict[str, str]:
    """Return tracked `*.py` and YAML of the module's top package (path -> git blob id).

    Results are left out.
    """
    package = module.split(".", 1)[0]
    files = {}
    for path, blob in repo.files(commit, package).items():
        is_code = path.endswith((".py", ".yaml", ".yml"))
        if is_code and not path.startswith(f"{plan.results}/"):
            files[path] = blob
    return files


#### the machine


def check_machine(paths: Paths) -> None:
    """Refuse a full disk and folders that cannot be written, before an hour of work."""
    free = shutil.disk_usage(paths.root).free
    if free < durable.MIN_FREE_BYTES:
        raise EnvironmentFaultError(
            f"{paths.root}: got {free / 1e9:.1f} GB free; "
            f"expected at least {durable.MIN_FREE_BYTES / 1e9:.1f} GB",
            hint="free disk space there, then run again",
        )
    for folder in (paths.private, paths.journal.parent, paths.root / paths.results_name):
        probe = folder / ".writable"
        durable.write(probe, b"")
        durable.remove(probe)
