"""The way back for a history or a ledger that is not as the runner left it: one line for a shell.

It is computed from the history, so that it can be copied and works: no commit, no file and no entry
is lost by it. A command ends before it changes anything, or does all of what it says. Plain calls
of git: `status` prints these ways too.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.git.checks import abort_in_progress, free_branch
from phases.git.probe import LOG_REF, run_git

PROGRESS = "progress.txt"
TRAILER = "^Phases-Txn: "
MAX_NAMED_FILES = 5
"""More files than these are stashed without naming each."""


@dataclass(frozen=True)
class RecordHistory:
    """Where the history and the runner's record are."""

    root: Path
    head: str
    log: str
    """The runner's last commit."""
    record: tuple[str, ...]
    """Files and folders that hold the record: progress.txt, decisions, results."""

    def names(self, *arguments: str) -> set[str]:
        """Return the paths that a git command lists, each ended by NUL."""
        return set(filter(None, run_git(self.root, *arguments).stdout.split("\0")))

    def lines(self, *arguments: str) -> list[str]:
        """Return the lines that a git command prints; none where it fails."""
        return run_git(self.root, *arguments).stdout.splitlines()

    def difference(self, one: str, other: str, *paths: str) -> set[str]:
        """Return the paths that differ between two commits."""
        options = ("diff", "--name-only", "--no-renames", "-z")
        return self.names(*options, one, other, "--", *paths)

    def merge_base(self) -> str | None:
        """Return the commit where HEAD and the runner's last commit part; None if they never met.

        It is the head itself where only later commits are missing.
        """
        return next(iter(self.lines("merge-base", self.head, self.log)), None)


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


#### HEAD is not at or after the runner's last commit


def rewound_way(root: Path, head: str | None, log: str, results: str) -> str:
    """Return the command that brings the record back, and what it does, for a hint.

    Args:
        root: the repository.
        head: HEAD's commit; None before the first one of a branch.
        log: the runner's last commit.
        results: the folder of results.
    """
    history = RecordHistory(root, head or log, log, (PROGRESS, "prd/approvals", results))
    abort = abort_in_progress(root)
    if abort:
        return f"`{abort}` gives up what is in progress, or finish it"
    branch = _branch_with_record(history)
    if head is None:
        command = f"git switch -c {free_branch(history.root, 'record')} {log[:12]}"
        if branch:
            command = _switch(history, branch)
        return f"`{command}` goes to the record"

    # 1. The same history in other commits: amended, rebased, squashed, rewritten.
    base = history.merge_base()
    if base is None and _has_record(history):
        return (
            f"`{begin_anew(root, history.record)}` begins a new record beside this repository, "
            f"without the old one; `{_kept_aside(history)}` goes back to the history "
            "that the record is about"
        )
    if base is not None and _has_other_record(history):
        return _way_of_copies(history)

    # 2. An older commit of this branch, or another branch.
    if branch and not _was_moved(history):
        return f"`{_switch(history, branch)}` goes to the branch that has the record"
    if base == head:
        return f"`{_forward(history)}` brings it back and keeps every file"
    return f"`{_joined(history, base)}` brings it back and keeps every commit"


def _has_record(history: RecordHistory) -> bool:
    return bool(history.lines("ls-tree", history.head, "--", PROGRESS))


def _has_other_record(history: RecordHistory) -> bool:
    """Return whether HEAD has commits of progress.txt that the runner's last commit has not."""
    options = ("rev-list", "--max-count=1", history.head, f"^{history.log}")
    return bool(history.lines(*options, "--", PROGRESS))


def _branch_with_record(history: RecordHistory) -> str | None:
    """Return a branch with the runner's last commit that no other work tree has checked out."""
    form = "--format=%(refname:lstrip=2)%09%(worktreepath)"
    options = ("for-each-ref", "--sort=-committerdate", f"--contains={history.log}", form)
    for line in history.lines(*options, "refs/heads"):
        name, _, work_tree = line.partition("\t")
        if not work_tree:
            return name
    return None


def _was_moved(history: RecordHistory) -> bool:
    """Return whether the branch of HEAD was at the runner's last commit before (its reflog)."""
    branch = next(iter(history.lines("symbolic-ref", "--quiet", "HEAD")), None)
    if branch is None:
        return False
    return history.log in history.lines("log", "--walk-reflogs", "--format=%H", branch, "--")


def _forward(history: RecordHistory) -> str:
    """Return the command that sets HEAD, an ancestor, to the runner's last commit again."""
    log = history.log[:12]
    text = run_git(history.root, "cat-file", "blob", f"{history.log}:{PROGRESS}").stdout
    if history.lines("rev-parse", "--verify", "--quiet", f":{PROGRESS}") == history.lines(
        "rev-parse", "--verify", "--quiet", f"{history.log}:{PROGRESS}"
    ):
        return f"git reset --soft {log}"
    path = history.root / PROGRESS
    if path.is_file() and path.read_text("utf-8", "surrogateescape").startswith(text):
        return f"git reset {log}"  # only the index went back with HEAD
    return _with_clean_files(history, f"git reset --keep {log}", history.log)


def _switch(history: RecordHistory, branch: str) -> str:
    return _with_clean_files(history, f"git switch {shlex.quote(branch)}", branch)


def _joined(history: RecordHistory, base: str | None) -> str:
    """Return the command that joins the user's own commits with the record.

    Where both changed the same file, the user's commits are kept in a branch of their own: a merge
    could stop amid conflicts.
    """
    if base is None:
        return _kept_aside(history)
    both = history.difference(base, history.head) & history.difference(base, history.log)
    if both:
        return _kept_aside(history)
    command = f"git merge --no-edit {history.log[:12]}"
    return _with_clean_files(history, command, history.log)


def _kept_aside(history: RecordHistory) -> str:
    """Return the command that goes to the record and keeps HEAD as a branch."""
    command = f"{_keep_branch(history)} && git reset --keep {history.log[:12]}"
    return _with_clean_files(history, command, history.log)


def _keep_branch(history: RecordHistory) -> str:
    return f"git branch {free_branch(history.root, f'kept-{history.head[:8]}')}"


def _with_clean_files(history: RecordHistory, command: str, target: str) -> str:
    """Return the command with uncommitted changes stashed that it would stop at."""
    colliding = _colliding(history, target)
    if not colliding:
        return command
    return f"{_stash(colliding)} && {command}"


def _colliding(history: RecordHistory, target: str) -> list[str]:
    """Return the changed and untracked files that differ between HEAD and another commit."""
    status = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    changed = {line[3:] for line in history.names(*status)}
    return sorted(changed & history.difference(history.head, target))


def _stash(paths: Sequence[str]) -> str:
    if len(paths) > MAX_NAMED_FILES:
        return "git stash -u"
    return f"git stash push -u -- {shlex.join(paths)}"


#### the runner's commits were copied


def _way_of_copies(history: RecordHistory) -> str:
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
        return (
            f"`{_kept_aside(history)}` goes back to the record and keeps this history as a branch"
        )
    first, last = places[0], places[-1]
    first_recording = next(place for place in places if chain[place].id in recording)
    if any(commit.id not in originals for commit in chain[first:first_recording]):
        first = first_recording
    copies = chain[first : last + 1]
    newest, base, later = chain[last], chain[first].parents[0], chain[last + 1 :]

    # 2. The copies must hold the record as it is; else files of the record come from it.
    if history.difference(history.log, newest.id, *history.record):
        return _way_of_changed_copies(history)

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
        steps = [f"git reset --keep {target}", *_replay(history, later, newest)]
        colliding = _colliding(history, newest.id)
        if colliding:
            steps = [_stash(colliding), *steps, "git stash pop"]
    is_folded = any(commit.id not in originals | recording for commit in copies)
    if is_folded or any(len(commit.parents) > 1 for commit in later):
        # Files of these commits are kept; the commits themselves only here.
        steps.insert(0, _keep_branch(history))
    return f"`{' && '.join(steps)}` brings it back, with every file and commit of yours"


def _new_commit(files_of: str, parents: str, message: str) -> str:
    """Return the shell words that make a commit with the files of another one, and are its name."""
    return f"$(git commit-tree {parents} -m '{message}' {files_of[:12]}^{{tree}})"


def _way_of_changed_copies(history: RecordHistory) -> str:
    """Return the way back from copies that hold another record than the runner's commits."""
    names = _existing_record(history)
    if _has_foreign_record(history):
        return (
            f"two records went on apart, and cannot be joined: `{_kept_aside(history)}` goes on "
            "with the one of this machine; to go on with the other one: "
            f"`{fresh_clone(history.root)}`"
        )
    log, keep = history.log[:12], _keep_branch(history)
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


#### progress.txt, its journal and HEAD's version differ


def ledger_way(root: Path, code: str, results: str) -> str:
    """Return the command that makes the ledger whole again, and what it does, for a hint.

    Args:
        root: the repository.
        code: the code of the ledger's first problem.
        results: the folder of results.
    """
    # 1. Two records amid a merge.
    abort = abort_in_progress(root)
    if abort:
        return (
            f"`{abort}` gives up what is in progress; where two clones both recorded, one of the "
            "two records must be given up: go on in one clone, and clone the other one anew"
        )

    # 2. The journal is damaged, and the committed text is whole.
    if code.startswith("journal-chain"):
        return (
            f"`{fresh_clone(root)}` goes on in a clone, from what is committed; commit or copy "
            "your own changes"
        )

    # 3. The text in HEAD is not what the runner committed.
    head = next(iter(_lines(root, "rev-parse", "--verify", "--quiet", "HEAD")), "")
    log = next(iter(_lines(root, "rev-parse", "--verify", "--quiet", LOG_REF)), "")
    if not log:  # a clone
        recorded = ("rev-list", "--max-count=1", f"--grep={TRAILER}", "HEAD")
        log = next(iter(_lines(root, *recorded)), "")
    history = RecordHistory(root, head, log, (PROGRESS, "prd/approvals", results))
    if log and history.difference(log, head, PROGRESS):
        return _way_of_changed_copies(history)
    if code == "journal-lacks-commit":
        return (
            f"`{fresh_clone(root)}` goes on with the committed record in a clone; "
            "commit or copy your own changes"
        )

    # 4. Only the work tree's text differs.
    if _lines(root, "ls-tree", "HEAD", "--", PROGRESS):
        return (
            "`git cat-file blob HEAD:progress.txt > progress.txt` throws away what was changed in "
            "progress.txt; the next run restores its newest entries from the journal"
        )
    return (
        f"`mv progress.txt {_free_folder(root, 'progress.txt')}` sets it aside; the next run "
        "restores its entries from the journal"
    )


def _lines(root: Path, *arguments: str) -> list[str]:
    return run_git(root, *arguments).stdout.splitlines()


def untrailed_way(root: Path, commit: str) -> str:
    """Return the command that takes back a commit of the runner's that lost its trailers."""
    history = RecordHistory(root, _lines(root, "rev-parse", "HEAD")[0], commit, ())
    reset = f"git reset --soft {commit[:12]}~1"
    if history.head == commit:
        return reset
    return f"{_keep_branch(history)} && {reset}"


def reviewed_way(root: Path, checkpoint: str, paths: Sequence[str]) -> str:
    """Return the command that gives files the bytes that a checkpoint has, in HEAD too.

    Args:
        root: the repository.
        checkpoint: the commit that was to be reviewed.
        paths: the files that differ from it.
    """
    history = RecordHistory(root, _lines(root, "rev-parse", "HEAD")[0], checkpoint, ())
    added = [path for path in paths if not _lines(root, "ls-tree", checkpoint, "--", path)]
    committed = history.difference(checkpoint, history.head)
    restored = [path for path in paths if path not in added and path in committed]
    steps = []
    for path in paths:
        # Flags of the index and filters hide such a change from `git checkout`.
        if path not in added and path not in committed:
            name = shlex.quote(path)
            steps.append(f"git cat-file blob {checkpoint[:12]}:{name} > {name}")
    if restored:
        # By a flag or by its times git may take a changed file for the same.
        steps.append(f"git update-index --force-remove -- {shlex.join(restored)}")
        steps.append(f"git checkout {checkpoint[:12]} -- {shlex.join(restored)}")
    if added:
        steps.append(f"git rm -qf -- {shlex.join(added)}")
    if committed & set(paths):
        message = "Restore what was reviewed"
        steps.append(f"git commit -qm '{message}' -- {shlex.join(paths)}")
    return " && ".join(steps)


#### beside this repository


def fresh_clone(root: Path) -> str:
    """Return the command that makes a clone beside the repository, with settings and artifacts.

    A clone has no journal: it goes on from what is committed.
    """
    target = _free_folder(root, "clone")
    steps = [f"git clone -q . {target}"]
    if (root / ".git").is_dir():
        steps.append(f"cp .git/config {target}/.git/config")
    if (root / ".phases/artifacts").is_dir():
        steps += [f"mkdir {target}/.phases", f"cp -r .phases/artifacts {target}/.phases/"]
    return " && ".join([*steps, f"cd {target}"])


def begin_anew(root: Path, record: Sequence[str]) -> str:
    """Return the command that makes a clone beside the repository whose history has no record."""
    target = _free_folder(root, "anew")
    steps = [f"git clone -q . {target}"]
    if (root / ".git").is_dir():
        steps.append(f"cp .git/config {target}/.git/config")
    remove = f"git rm -rq --cached --ignore-unmatch -- {shlex.join(record)}"
    steps += [
        f"cd {target}",
        "FILTER_BRANCH_SQUELCH_WARNING=1 git filter-branch -f --prune-empty --index-filter "
        f"{shlex.quote(remove)}",
    ]
    return " && ".join(steps)


def _free_folder(root: Path, suffix: str) -> str:
    """Return a folder beside the repository that does not exist, quoted."""
    name, number = f"{root.resolve().name}-{suffix}", 1
    free = name
    while (root.resolve().parent / free).exists():
        number += 1
        free = f"{name}-{number}"
    return shlex.quote(f"../{free}")
