"""The whole record, read once: what every check of the audit is about.

Git's objects come from one process, each plan is parsed once, each blob hashed once. Documents are
read one attempt at a time: a long record does not fit into memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from pydantic import ValidationError

from phases.audit.findings import no_counts
from phases.audit.source_tree import SourceTree, folder_items
from phases.base import durable
from phases.base.paths import link_above
from phases.git.objects import FOLDER, GitObject, ObjectReader
from phases.git.record_history import RecordCommit, is_ancestor
from phases.git.repo import SUBMODULE, Repo, TreeEntry
from phases.git.tree import BYTECODE
from phases.judge.committed_gates import gate_descriptor
from phases.plan.load import parse_plan, schema_problems
from phases.plan.schema import Gate, Plan
from phases.record import entries
from phases.record.committed_plan import plan_path
from phases.record.evidence import Evidence
from phases.record.feature_code import record_paths
from phases.record.ledger import Entry, EntryKind, Ledger
from phases.record.pending import Pending
from phases.record.project import Project, Snapshot
from phases.record.state import State, extend_state, fold_state
from phases.record.statement import ResourceDescriptor

PROGRESS = "progress.txt"


def head_of(entry: Entry) -> str:
    """Return the commit that was HEAD when an entry was made; empty where it names none."""
    return (entry.match(entries.HEAD) or {}).get("commit", "")


@dataclass(frozen=True)
class Version:
    """progress.txt in a commit that changed it."""

    commit: RecordCommit
    data: memoryview | None
    """None where the commit deleted it."""
    entries: tuple[Entry, ...]

    @property
    def is_runners(self) -> bool:
        """Whether the commit has trailers. The runner makes no merges."""
        return "Phases-Entry" in self.commit.trailers and len(self.commit.parents) < 2


@dataclass
class Record:
    """Ledger, history and objects of one audit."""

    project: Project
    repo: Repo
    snapshot: Snapshot
    objects: ObjectReader
    pending: Pending
    """What is prepared, read before the ledger."""
    versions: Sequence[Version] = ()
    """Every version of progress.txt in HEAD's history."""
    set_aside: Mapping[int, RecordCommit] = field(default_factory=dict)
    """Number of an outcome that counts for nothing -> the commit that brought it."""
    commits: Mapping[int, RecordCommit] = field(default_factory=dict)
    """Number of an entry -> the commit of the runner's that recorded it, without the outcomes that
    count for nothing."""
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """SHA-256 of a receipt -> its outputs by digest; of the attempts that were checked."""
    checked: dict[str, int] = field(default_factory=no_counts)
    """Kind of thing -> how many of them were checked."""
    published: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """SHA-256 of a receipt -> where its outputs are published."""
    measured: set[str] = field(default_factory=set)
    """SHA-256 of the receipts whose result.json has measurements."""
    _lock_paths: dict[int, set[str]] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)
    _plans: dict[str, Plan | str] = field(default_factory=dict)
    """Blob, and commit, of a plan -> the plan, or why it cannot be read."""
    _tree_ids: dict[str, str | None] = field(default_factory=dict)
    _sources: dict[str, SourceTree] = field(default_factory=dict)
    _gates: dict[tuple[int, int, str], ResourceDescriptor] = field(default_factory=dict)
    _trees: dict[tuple[TreeEntry, ...], SourceTree] = field(default_factory=dict)
    _states: dict[int, tuple[list[int], list[State]]] = field(default_factory=dict)
    """Id of a plan -> how many entries the states have that were asked, in order, and these."""
    _ancestry: dict[tuple[str, str], bool] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        """The ledger that counts."""
        return self.snapshot.ledger

    @property
    def evidence(self) -> Evidence:
        """What the history says of the ledger."""
        return self.snapshot.evidence

    #### objects

    def read(self, commit: str, path: str) -> bytes | None:
        """Return a file's bytes in a commit; None where it has no such file."""
        found = self._blob(f"{commit}:{path}")
        return found.data if found else None

    def digest(self, blob: str) -> str | None:
        """Return the SHA-256 of a blob that a tree names; None where git cannot read it."""
        if blob not in self._digests and self._blob(blob) is None:
            self.objects.damaged.append(blob)
        return self._digests.get(blob)

    def _blob(self, name: str) -> GitObject | None:
        found = self.objects.find(name)
        if found is None or found.kind != "blob":
            return None
        if found.id not in self._digests:
            self._digests[found.id] = durable.sha256(found.data)
        return found

    def message(self, commit: str) -> str:
        """Return the message of a commit."""
        found = self.objects.find(commit)
        _, _, message = (found.data if found else b"").partition(b"\n\n")
        return message.decode("utf-8", "backslashreplace")

    def tree_id(self, commit: str) -> str | None:
        """Return the id of a commit's tree."""
        if commit not in self._tree_ids:
            self._tree_ids[commit] = self.object_id(commit, "")
        return self._tree_ids[commit]

    def object_id(self, commit: str, path: str) -> str | None:
        """Return the id of a file or folder in a commit; of "" that of its tree."""
        found = self.objects.find(f"{commit}:{path}")
        return found.id if found else None

    def is_before(self, older: str, newer: RecordCommit) -> bool:
        """Return whether a commit is before the one that recorded something."""
        return older in newer.parents or self.is_ancestor(older, newer.sha)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether a commit is another one, or before it."""
        if older == newer:
            return True
        if (older, newer) not in self._ancestry:
            self._ancestry[older, newer] = is_ancestor(self.project.root, older, newer)
        return self._ancestry[older, newer]

    def has_entries_before(self, commit: str, number: int) -> bool:
        """Return whether a commit is at or after the runner's newest one before an entry.

        A decision that was given up may have got into the history by a later merge.
        """
        newest = self.evidence.newest_before(number)
        while newest and int(newest.trailers["Phases-Entry"]) in self.evidence.lost:
            newest = self.evidence.newest_before(int(newest.trailers["Phases-Entry"]))
        return newest is None or self.is_ancestor(newest.sha, commit)

    def lock_paths(self, phase: int) -> set[str]:
        """Return where the locks of a phase are, by its LOCKED entries."""
        if not self._lock_paths:
            for entry in self.ledger.entries:
                named = entry.match(entries.LOCK) if entry.kind == EntryKind.LOCKED else None
                if named and entry.phase is not None:
                    self._lock_paths.setdefault(entry.phase, set()).add(named["path"])
        return self._lock_paths.get(phase, set())

    #### what a commit decides

    def plan_path(self, commit: str) -> str:
        """Return the path of a commit's plan; ValueError where it holds none, or more than one."""
        folder = self.objects.find(f"{commit}:prd")
        items = self.objects.tree_items(folder.id) if folder and folder.kind == "tree" else ()
        return plan_path(f"prd/{item.name}" for item in items if item.is_file)

    def plan(self, commit: str) -> Plan:
        """Return the plan that a commit holds; ValueError where it holds none that can be read."""
        if commit not in self._plans:
            self._plans[commit] = self._read_plan(commit)
        plan = self._plans[commit]
        if isinstance(plan, str):
            reason = plan
            raise ValueError(reason)  # noqa: TRY004
        return plan

    def _read_plan(self, commit: str) -> Plan | str:
        """Return the plan of a commit, or why it cannot be read; one blob is parsed once."""
        named = self.objects.find(commit)
        if named is None or named.kind != "commit":
            return "git has no such commit"
        try:
            found = self._blob(f"{commit}:{self.plan_path(commit)}")
            blob = found.id if found else ""
            if blob not in self._plans:
                self._plans[blob] = parse_plan(found.data if found else b"")
        except ValidationError as error:
            return "; ".join(schema_problems(error))
        except ValueError as error:
            return str(error)
        return self._plans[blob]

    def sources(self, commit: str) -> SourceTree:
        """Return the tree of a commit without results, decisions and progress.txt."""
        if commit not in self._sources:
            root = TreeEntry("", FOLDER, self.tree_id(commit) or "", 0)
            record = record_paths(self.plan(commit).results)
            top = tuple(self._top_items(root, record))
            if top not in self._trees:
                self._trees[top] = SourceTree(self.repo, commit, objects=self.objects, top=top)
            self._sources[commit] = self._trees[top]
        return self._sources[commit]

    @cached_property
    def head(self) -> SourceTree:
        """HEAD's tree, with the record."""
        commit = self.repo.head()
        root = TreeEntry("", FOLDER, self.tree_id(commit) or "", 0)
        top = tuple(folder_items(self.objects, root))
        return SourceTree(self.repo, commit, objects=self.objects, top=top)

    def gate(self, commit: str, gate: Gate) -> ResourceDescriptor:
        """Return a gate's name and digest in a commit."""
        tree, plan = self.sources(commit), self.plan(commit)
        key = (id(tree), id(plan), gate.name)
        if key not in self._gates:
            self._gates[key] = gate_descriptor(tree, plan, gate)
        return self._gates[key]

    def _top_items(self, folder: TreeEntry, record: tuple[str, ...]) -> Iterator[TreeEntry]:
        """Yield what is in a folder; of a folder that holds a part of the record what is in it."""
        for entry in folder_items(self.objects, folder):
            is_folder = entry.mode == FOLDER
            if is_folder and any(part.startswith(f"{entry.path}/") for part in record):
                if f"{entry.path}/" not in record:
                    yield from self._top_items(entry, record)
            elif not entry.path.startswith(record):
                yield entry

    def contents(self, tree: SourceTree, paths: Iterable[str]) -> dict[str, str]:
        """Return path -> SHA-256 of the files and links that a layout of these has."""
        contents = {}
        for path in paths:
            entry = tree.entries.get(path)
            if entry is None or entry.mode == SUBMODULE or BYTECODE in path.split("/"):
                continue
            digest = self.digest(entry.id)
            if digest:
                contents[path] = digest
        return contents

    def file_digest(self, tree: SourceTree, path: str) -> str | None:
        """Return the SHA-256 of a file of a tree, whose path the plan may begin with `./`."""
        entry = tree.entries.get(PurePosixPath(path).as_posix())
        return self.digest(entry.id) if entry and entry.is_file else None

    def state_before(self, plan: Plan, number: int) -> State:
        """Return the state by a plan before an entry; it goes on from the nearest one asked."""
        counts, states = self._states.setdefault(id(plan), ([], []))
        position = bisect_right(counts, number - 1)
        count, state = 0, fold_state(plan, (), self.evidence)
        if position:
            count, state = counts[position - 1], states[position - 1]
        state = extend_state(state, self.ledger.entries[count : number - 1], self.evidence)
        counts.insert(position, number - 1)
        states.insert(position, state)
        return state

    #### the work tree

    def work_tree_digest(self, path: str) -> str | None:
        """Return the SHA-256 of a regular file of the work tree; None where there is none."""
        root = self.project.root
        file = root / path
        try:
            if file.is_symlink() or not file.is_file() or link_above(root, path):
                return None
            return durable.sha256_file(file)
        except (OSError, ValueError):
            return None
