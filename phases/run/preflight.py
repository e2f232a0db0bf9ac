"""Before any work: what decides about it is committed, and the machine can record an outcome."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import phases
from phases.base import durable
from phases.base.paths import Paths
from phases.base.text import printable
from phases.errors import EnvironmentFaultError
from phases.execution.command_line import named_paths
from phases.git.checks import read_repository_state, repository_problems
from phases.git.repo import Repo
from phases.git.tree import CommitTree, changed_files
from phases.plan.lock import gate_scope
from phases.plan.schema import Feature, Phase, Plan
from phases.record.decision_check import APPROVALS
from phases.record.feature_code import module_packages
from phases.run.committed_code import named_by_feature, require_complete
from phases.run.imports import Interpreter, offered_paths
from phases.run.programs import path_folders, resolve_programs

LOCK_WAIT_S = 3.0
SOURCES = (".py", ".pyi", ".pyx", ".so", ".yaml", ".yml", ".json", ".toml", ".ini", ".cfg")
"""Ends of names of files in a package that its code probably needs."""


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
                hint = f"replace {folder} by a folder of its own"
                if path == paths.progress:
                    hint = "`rm progress.txt`; the next run or decision writes it again"
                raise EnvironmentFaultError(
                    f"{folder} is a symbolic link; the record must be in the repository itself",
                    hint=hint,
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


def check_publish(tree: CommitTree, targets: Sequence[str]) -> None:
    """Refuse where an output would be published over uncommitted work."""
    if not targets:
        return
    entries = [tree.entries[path] for path in targets if path in tree.entries]
    untracked = [path for path in targets if path not in tree.entries]
    dirty = changed_files(tree.repo.root, entries)
    dirty += [path for path in tree.repo.untracked() if path in untracked]
    if dirty:
        raise EnvironmentFaultError(
            f"{dirty[0]} has uncommitted changes and would be overwritten by this feature",
            hint=f"commit or move {dirty[0]}, then run again",
        )


#### the work tree against the commit


def check_work_tree(
    tree: CommitTree, plan: Plan, phase: Phase, features: Sequence[Feature]
) -> None:
    """Refuse where what decides about a run is not committed: the commit runs, not the work tree.

    `features` are those that are about to run. What decides is hashed: no flag of git's index and
    no filter has a say in it.
    """
    # 1. The commit has all of what runs.
    tree.require_links_inside()
    for each in features:
        require_complete(tree, plan, each)

    # 2. What decides is in the work tree as it is in the commit.
    untracked = _untracked(tree, plan)
    deciding = _DecidingPaths(tree, plan, phase, features, untracked)
    entries = [entry for path, entry in tree.entries.items() if deciding.has_changed(path)]
    changed = changed_files(tree.repo.root, entries)
    lines = [f"\n  {printable(path)} (changed)" for path in _edited_files(tree, changed)]
    forgotten = {path for path in untracked if deciding.has_untracked(path)}
    forgotten.update(deciding.missing())
    for path in sorted(forgotten):
        reason = "not in the commit"
        if path in tree.links:
            reason = "a link; expected a file"
        elif not _is_utf8(path):
            reason = "its name is not UTF-8"
        lines.append(f"\n  {printable(path)} ({reason})")
    if lines:
        raise EnvironmentFaultError(
            f"what decides about this run differs from commit {tree.commit[:12]}, "
            f"and the commit is what runs:{''.join(lines)}",
            hint="commit these files (or `git stash -u`), then run again",
        )


def describe_other_changes(tree: CommitTree, plan: Plan) -> str:
    """Return a sentence on changes of the work tree that are not part of a run, or nothing.

    The record itself is left out.
    """
    record = ("progress.txt", f"{plan.results}/", f"{APPROVALS}/", ".phases/")
    entries = [entry for path, entry in tree.entries.items() if not path.startswith(record)]
    changed_count = len(changed_files(tree.repo.root, entries))
    untracked_count = sum(not path.startswith(record) for path in _untracked(tree, plan))
    counts = [f"{changed_count} changed"] if changed_count else []
    counts += [f"{untracked_count} untracked"] if untracked_count else []
    if not counts:
        return ""
    files = "files are" if changed_count + untracked_count > 1 else "file is"
    return f"{' and '.join(counts)} {files} not part of this run: commit {tree.commit[:12]} runs"


def _untracked(tree: CommitTree, plan: Plan) -> list[str]:
    """Return the files of the work tree, without results, that neither commit nor git ignores."""
    paths = tree.repo.untracked(without=plan.results)
    return [path for path in paths if path not in tree.entries]


def _edited_files(tree: CommitTree, changed: Sequence[str]) -> list[str]:
    """Return the changed files without those that differ by a filter or by line ends alone.

    A checkout writes those so, and no commit would change it. The commit's bytes run in any case.
    """
    root = tree.repo.root
    existing = [path for path in changed if (root / path).is_file()]
    stored = tree.repo.stored_ids(existing) if existing else {}
    return [path for path in changed if stored.get(path) != tree.entries[path].id]


class _DecidingPaths:
    """The paths that must be as the commit has them before features of a phase run."""

    def __init__(
        self,
        tree: CommitTree,
        plan: Plan,
        phase: Phase,
        features: Sequence[Feature],
        untracked: Sequence[str],
    ):
        self._tree = tree
        self._results = f"{plan.results}/"
        gates = [*phase.entry, *phase.exit, *(feature.gate for feature in features)]

        # 1. Files and folders that the plan names, and the runner itself where it is in here.
        self._named = ["constraints.txt", "prd/allowed_signers", *runner_code(tree.repo)]
        self._files = [gate.pytest for gate in gates if gate.pytest]
        self._files += [
            PurePosixPath(feature.config).as_posix() for feature in features if feature.config
        ]
        self._named += self._files
        self._words: set[str] = set()
        self._path_folders = path_folders(tree)
        for feature in features:
            self._named += named_by_feature(plan, feature)
            self._words.update(named_paths(feature.command or ""))

        # 2. What a gate may import, and what a module imports.
        self._code: set[str] = set()
        self._packages: set[str] = set()
        self._forgotten: set[str] = set()
        self._refused: set[str] = set()
        for gate in gates:
            gate_files = gate_scope(plan, gate, tree.files("gates"))
            self._code.update(gate_files)
            self._forgotten.update(gate_scope(plan, gate, _gate_files(untracked)))
            # A lock names each file of a gate, and the gate is given files alone.
            self._refused.update(path for path in gate_files if not _is_utf8(path))
            self._refused.update(gate_scope(plan, gate, _gate_files(tree.links)))
        forgotten_names = {_top_name(path) for path in untracked if path.endswith(".py")}
        modules = {feature.module for feature in features if feature.module}
        for module in sorted(modules):
            if not _module_files(module) & tree.entries.keys():
                self._files.append(f"{module.replace('.', '/')}.py")
            packages = module_packages(tree, module, plan.results, forgotten_names)
            self._packages.update([module.split(".", 1)[0], *packages])
            for paths in packages.values():
                self._code.update(paths)

        # 3. What an editable install offers to a command from the work tree.
        interpreters: dict[str, Interpreter] = {}
        for feature in features:
            if feature.command:
                for each in resolve_programs(feature.command, tree).interpreters:
                    interpreters[each.python] = each
        self._offered = offered_paths(interpreters.values(), tree, plan.results)
        self._named += self._offered.values()

    def missing(self) -> list[str]:
        """Return the files that the commit should have and does not, ignored ones too."""
        entries = self._tree.entries
        named = [path for path in self._files if path not in entries or not entries[path].is_file]
        return [*named, *self._refused]

    def has_changed(self, path: str) -> bool:
        """Return whether a file of the commit decides."""
        is_named = any(f"{path}/".startswith(f"{name}/") for name in self._named)
        return path in self._code or path in self._words or _is_plan(path) or is_named

    def has_untracked(self, path: str) -> bool:
        """Return whether a file that is not in the commit was probably forgotten."""
        if path.startswith(self._results):
            return False
        top = _top_name(path)
        is_offered = any(f"{path}/".startswith(f"{name}/") for name in self._offered.values())
        is_source = path.endswith(SOURCES) and (top in self._packages or is_offered)
        is_named = path in self._words or path in self._named or path in self._forgotten
        return is_source or is_named or _is_plan(path) or self._is_program(path)

    def _is_program(self, path: str) -> bool:
        """Return whether a file would be found by PATH."""
        is_on_path = PurePosixPath(path).parent.as_posix() in self._path_folders
        return is_on_path and os.access(self._tree.repo.root / path, os.X_OK)


def _top_name(path: str) -> str:
    """Return the name by which Python imports what is at the top of a path."""
    return path.split("/", 1)[0].removesuffix(".py")


def _is_plan(path: str) -> bool:
    return path.startswith("prd/") and path.endswith(".json") and path.count("/") == 1


def _is_utf8(path: str) -> bool:
    return path.encode("utf-8", "replace") == os.fsencode(path)


def _gate_files(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.startswith("gates/") and path.endswith(SOURCES)]


def _module_files(module: str) -> set[str]:
    """Return the paths of which Python runs one for `-m MODULE`."""
    base = module.replace(".", "/")
    return {f"{base}.py", f"{base}/__main__.py"}


def runner_code(repo: Repo) -> list[str]:
    """Return the runner itself if it is imported from this repository: the lock has its digest."""
    package = Path(phases.__file__).resolve().parent
    root = repo.root.resolve()
    if not package.is_relative_to(root):
        return []
    return [package.relative_to(root).as_posix()]


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
    results = paths.root / paths.results_name
    for folder in (paths.private, paths.journal.parent, paths.bindings, results):
        probe = folder / ".writable"
        durable.write(probe, b"")
        durable.remove(probe)
