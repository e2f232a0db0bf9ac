"""Before any work: everything that will be digested equals HEAD, and the machine can record an outcome."""

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
FREE_BYTES = 1 << 30
"""Room that staging, artifacts and gate copies of a feature need at least."""


def code_files(repo: Repo, commit: str, plan: Plan, module: str) -> dict[str, str]:
    """Tracked `*.py` and YAML of the module's top package without results: path -> git blob id."""
    package = module.split(".", 1)[0]
    files = repo.files(commit, package)
    results = plan.results + "/"
    return {
        path: blob
        for path, blob in files.items()
        if path.endswith((".py", ".yaml", ".yml")) and not path.startswith(results)
    }


def digested_paths(repo: Repo, plan: Plan, phase: Phase, feature: Feature | None) -> list[str]:
    """Repository paths whose committed bytes a run of this feature (or of the exit gates) is judged by."""
    features = phase.features if feature is None else (feature,)
    paths = {
        "prd",
        "gates",
        "constraints.txt",
        *_own_code(repo),
        *_named_files(repo, plan, phase, feature),
    }
    for item in features:
        paths |= set(code_files(repo, "HEAD", plan, item.module)) if item.module else set()
        paths |= {given.path for given in map(plan.input, item.inputs) if not given.is_cached}
    return sorted(paths)


def check_repository(repo: Repo, *, with_locks: bool = True) -> None:
    """A state of the repository in which a commit of ours would be a surprise, or impossible, is refused.

    `with_locks` is off before recovery, which itself removes the locks that are proved to be a killed runner's.
    """
    state = read_repository_state(repo.root)
    if with_locks and state.locks:
        state = replace(state, locks=_still_there(state.locks))
    for problem in repository_problems(state if with_locks else replace(state, locks=())):
        raise problem


def _still_there(locks: tuple[Path, ...]) -> tuple[Path, ...]:
    """The locks that are left after a moment: a user's git at work is mostly over by then. None is ever removed."""
    end = time.monotonic() + LOCK_WAIT_S
    while any(path.exists() for path in locks) and time.monotonic() < end:
        time.sleep(0.05)
    return tuple(path for path in locks if path.exists())


def check_places(repo: Repo, paths: Paths) -> None:
    """What the runner commits must be this repository's to hold, byte for byte."""
    for name in (paths.results_name, "prd/approvals", "progress.txt"):
        for folder in (Path(name), *Path(name).parents[:-1]):
            where = paths.root / folder
            if where.is_symlink():
                raise EnvironmentFaultError(
                    f"{folder} is a symbolic link; results must lie in the repository itself",
                    hint=f"replace {folder} by a folder of its own",
                )
            if (where / ".git").exists():
                raise EnvironmentFaultError(
                    f"{folder} is a repository of its own (it has {folder}/.git); what is written there cannot be "
                    "committed here",
                    hint=f"name another folder in the plan's field results, or move {folder}/.git away",
                )
    for path, name, value in repo.attributes(
        (f"{paths.results_name}/x/result.json", "progress.txt", "prd/x.json")
    ):
        if (name, value) == ("eol", "crlf") or (
            name != "eol" and value not in ("unspecified", "unset")
        ):
            raise EnvironmentFaultError(
                f".gitattributes gives {path} {name}={value}: git would store or check out other bytes than it has",
                hint=f"add `{path.rsplit('/', 2)[0]}{'/**' if '/' in path else ''} -{name}` to .gitattributes",
            )


def check_equals_head(repo: Repo, plan: Plan, phase: Phase, feature: Feature | None) -> None:
    """Uncommitted changes to what will be digested are refused: a receipt must name bytes that are in a commit."""
    tracked = set(repo.files("HEAD", "."))
    dirty = repo.changed("HEAD", digested_paths(repo, plan, phase, feature))
    new = [path for path in _named_files(repo, plan, phase, feature) if path not in tracked]
    if dirty or new:
        listing = "".join(f"\n  {path} (changed)" for path in dirty) + "".join(
            f"\n  {path} (not in HEAD)" for path in new
        )
        raise EnvironmentFaultError(
            "what this run is judged by differs from HEAD:" + listing,
            hint="commit these files (or git stash them), then run again",
        )


def _named_files(repo: Repo, plan: Plan, phase: Phase, feature: Feature | None) -> list[str]:
    """Files that must be tracked: modules, configs, gates and the plan itself."""
    features = phase.features if feature is None else (feature,)
    gates = (*phase.entry, *phase.exit, *(item.gate for item in features))
    files = [find_plan(repo.root).relative_to(repo.root).as_posix()]
    files += [gate.pytest for gate in gates if gate.pytest]
    files += [item.config for item in features if item.config]
    for item in features:
        found = module_file(repo.root, item.module) if item.module else None
        files += [found.relative_to(repo.root).as_posix()] if found else []
    return sorted(set(files))


def _own_code(repo: Repo) -> list[str]:
    """The runner itself, where it is imported from this repository: the lock holds its digest."""
    package = Path(phases.__file__).resolve().parent
    root = repo.root.resolve()
    return [package.relative_to(root).as_posix()] if package.is_relative_to(root) else []


def check_publish(repo: Repo, targets: Sequence[str]) -> None:
    """A place that outputs are published to must not hold a person's uncommitted work."""
    dirty = [*repo.changed("HEAD", targets), *repo.untracked(targets)] if targets else []
    if dirty:
        raise EnvironmentFaultError(
            f"{dirty[0]} has uncommitted changes and would be overwritten by this feature",
            hint=f"commit or move {dirty[0]}, then run again",
        )


def check_machine(paths: Paths) -> None:
    """Room on the disk, and folders that can be written: found out before an hour of work, not after it."""
    free = shutil.disk_usage(paths.root).free
    if free < FREE_BYTES:
        raise EnvironmentFaultError(
            f"{paths.root}: {free / 1e9:.1f} GB free, wanted at least {FREE_BYTES / 1e9:.1f} GB",
            hint="free space there, then run again",
        )
    for folder in (paths.private, paths.journal.parent, paths.root / paths.results_name):
        probe = folder / ".writable"
        durable.write(probe, b"")
        durable.remove(probe)
