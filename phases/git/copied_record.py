"""The way back from copies of the runner's commits: amended, rebased, squashed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phases.git.probe import run_git
from phases.git.way_parts import (
    PROGRESS,
    RecordHistory,
    colliding_files,
    fresh_clone,
    keep_branch,
    keep_reset,
    kept_aside,
    stash_command,
)


@dataclass(frozen=True)
class _Commit:
    """A commit of the user's line of history."""

    id: str
    parents: tuple[str, ...]
    tree: str
    author: tuple[str, ...]
    """Name, mail, time and subject: a rebase keeps all of them."""
    txn: str
    """The transaction that the runner's trailer names; empty in a commit of the user's."""


def way_of_copies(history: RecordHistory) -> str:
    """Return the way back from copies of the runner's commits to these commits themselves.

    Merged, the history would hold the record twice. What is new below the copies is merged, as they
    have it, and what is new above them is picked again; neither can conflict.
    """
    log = history.log[:12]

    # 1. Which commits of this line are copies, and what is new below, between and above them.
    chain = _chain(history)
    originals = _originals(history, chain)
    recording = _recording(history, chain)
    places = [place for place, commit in enumerate(chain) if commit.id in originals | recording]
    if not recording:  # only a merged branch has them
        return f"`{kept_aside(history)}` goes back to the record and keeps this history as a branch"
    first, last = places[0], places[-1]
    first_recording = next(place for place in places if chain[place].id in recording)
    if any(commit.id not in originals for commit in chain[first:first_recording]):
        first = first_recording
    copies = chain[first : last + 1]
    newest, base, later = chain[last], chain[first].parents[0], chain[last + 1 :]

    # 2. The copies must hold the record as it is; else files of the record come from it.
    if history.difference(history.log, newest.id, *history.record):
        return way_of_changed_copies(history)

    # 3. A commit on the runner's last one, with the files of the newest copy.
    parents, message = f"-p {log}", f"Changes that were part of {newest.id[:12]}"
    is_new = bool(history.lines("rev-list", "--max-count=1", base, f"^{history.log}"))
    if is_new:
        parents, message = f"{parents} -p {base[:12]}", f"Merge {base[:12]}"
    target = log
    if is_new or (later and history.difference(history.log, newest.id)):
        target = _new_commit(newest.id, parents, message)
    steps = [f"git reset --soft {target}"]

    # 4. The commits above, and uncommitted changes of what these changed.
    if later:
        steps = [keep_reset(history, target), *_replay(history, later, newest)]
        collisions = colliding_files(history, newest.id)
        if collisions:
            steps = [stash_command(collisions), *steps, "git stash pop"]
    is_folded = any(commit.id not in originals | recording for commit in copies)
    if is_folded or any(len(commit.parents) > 1 for commit in later):
        # Files of these commits are kept; the commits themselves only here.
        steps.insert(0, keep_branch(history))
    return f"`{' && '.join(steps)}` brings it back, with every file and commit of yours"


def _new_commit(files_of: str, parents: str, message: str) -> str:
    """Return the shell words that make a commit with the files of another one, and are its name."""
    return f"$(git commit-tree {parents} -m '{message}' {files_of[:12]}^{{tree}})"


def way_of_changed_copies(history: RecordHistory) -> str:
    """Return the way back from copies that hold another record than the runner's commits."""
    names = _existing_record(history)
    if _has_foreign_record(history):
        return (
            f"two records went on apart, and cannot be joined: `{kept_aside(history)}` goes on "
            "with the one of this machine; to go on with the other one: "
            f"`{fresh_clone(history.root)}`"
        )
    log, keep = history.log[:12], keep_branch(history)
    return (
        f"`{keep} && git reset --soft {log} && git checkout {log} -- {names}` brings it back, "
        "keeps every file of yours, staged, and restores the record's own files; this history "
        "stays as a branch"
    )


def _has_foreign_record(history: RecordHistory) -> bool:
    """Return whether another runner recorded something in HEAD's history."""
    own = {commit.txn for commit in _commits(history, history.log)}
    new = _commits(history, history.head, f"^{history.log}")
    return any(commit.txn not in own for commit in new if commit.txn)


def _existing_record(history: RecordHistory) -> str:
    """Return those files and folders of the record that the runner's last commit has, quoted."""
    existing = history.names("ls-tree", "-z", "--name-only", history.log, "--", *history.record)
    return shlex.join([name for name in history.record if name in existing])


def _chain(history: RecordHistory) -> list[_Commit]:
    """Return HEAD's line of commits since it left the runner's last commit, oldest first."""
    return list(_commits(history, "--first-parent", "--reverse", history.head, f"^{history.log}"))


def _commits(history: RecordHistory, *arguments: str) -> Iterator[_Commit]:
    form = "%H%x00%P%x00%T%x00%an%x00%ae%x00%at%x00%s%x00%(trailers:key=Phases-Txn,valueonly)"
    fields = run_git(history.root, "log", "-z", f"--format={form}", *arguments).stdout.split("\0")
    for start in range(0, len(fields) - 7, 8):
        commit, parents, tree, *author, txn = fields[start : start + 8]
        yield _Commit(commit, tuple(parents.split()), tree, tuple(author), txn.strip())


def _originals(history: RecordHistory, chain: Sequence[_Commit]) -> set[str]:
    """Return the commits of HEAD's line of which the runner's last commit has the original."""
    authors = {commit.author for commit in _commits(history, history.log, f"^{history.head}")}
    options = ("rev-list", "--right-only", "--cherry-pick", "--no-merges")
    new = set(history.lines(*options, f"{history.log}...{history.head}"))
    originals = set()
    for commit in chain:
        is_same = len(commit.parents) < 2 and commit.id not in new
        if is_same or commit.author in authors:
            originals.add(commit.id)
    return originals


def _recording(history: RecordHistory, chain: Sequence[_Commit]) -> set[str]:
    """Return the commits of HEAD's line that hold entries: copies of the runner's, or squashed."""
    options = ("rev-list", "--first-parent", history.head, f"^{history.log}")
    changing = set(history.lines(*options, "--", PROGRESS))
    return {commit.id for commit in chain if commit.txn or commit.id in changing}


def _replay(history: RecordHistory, commits: Sequence[_Commit], copy: _Commit) -> Iterator[str]:
    """Yield the commands that make these commits again on a commit with the files of a copy.

    A merged branch that has copies of the runner's commits itself gives its files alone.
    """
    tree = copy.tree
    picks: list[str] = []
    options = ""
    for commit in commits:
        if len(commit.parents) > 1:
            yield from _cherry_pick(picks, options)
            picks, options = [], ""
            options_of = ("rev-list", "--max-count=1", f"^{history.log}")
            merged = [
                parent
                for parent in commit.parents[1:]
                if not history.lines(*options_of, parent, "--", PROGRESS)
            ]
            parents = " ".join(f"-p {parent[:12]}" for parent in ("HEAD", *merged))
            target = _new_commit(commit.id, parents, f"As in merge {commit.id[:12]}")
            yield f"git reset --keep {target}"
        else:
            picks.append(commit.id[:12])
            if commit.tree == tree:
                options = "--allow-empty "
        tree = commit.tree
    yield from _cherry_pick(picks, options)


def _cherry_pick(picks: Sequence[str], options: str) -> Iterator[str]:
    if picks:
        yield f"git cherry-pick {options}{' '.join(picks)}"
