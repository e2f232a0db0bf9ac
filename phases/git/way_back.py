"""The way back for a history or a ledger that is not as the runner left it: one line for a shell.

It is computed from the history, so that it can be copied and works: no commit, no file and no entry
is lost by it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from phases.base.regular_file import path_problem
from phases.base.text import is_printable
from phases.git.checks import abort_in_progress, free_branch
from phases.git.copied_record import way_of_changed_copies, way_of_copies
from phases.git.probe import LOG_REF, blob_id, run_git
from phases.git.record_history import is_ancestor
from phases.git.way_parts import (
    PROGRESS,
    RecordHistory,
    begin_anew,
    free_folder,
    fresh_clone,
    git_lines,
    keep_branch,
    keep_reset,
    kept_aside,
    shell_word,
    with_clean_files,
)

TRAILER = "^Phases-Txn: "

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
            f"without the old one; `{kept_aside(history)}` goes back to the history "
            "that the record is about"
        )
    if base is not None and _has_other_record(history):
        return way_of_copies(history)

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
    return with_clean_files(history, keep_reset(history, log), history.log)


def _switch(history: RecordHistory, branch: str) -> str:
    return with_clean_files(history, f"git switch {shlex.quote(branch)}", branch)


def _joined(history: RecordHistory, base: str | None) -> str:
    """Return the command that joins the user's own commits with the record.

    Where both changed the same file, the user's commits are kept in a branch of their own: a merge
    could stop amid conflicts.
    """
    if base is None:
        return kept_aside(history)
    both = history.difference(base, history.head) & history.difference(base, history.log)
    if both:
        return kept_aside(history)
    command = f"git merge --ff --no-edit {history.log[:12]}"
    return with_clean_files(history, command, history.log)


def genesis_way(root: Path, head: str, commit: str, results: str) -> str:
    """Return the command that goes back to the history that a record without commits is about.

    Args:
        root: the repository.
        head: HEAD's commit.
        commit: the commit that was HEAD when the record began.
        results: the folder of results.
    """
    if git_lines(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        return rewound_way(root, head, commit, results)
    return f"`{fresh_clone(root)}` begins a new record in a clone: git has {commit[:12]} no more"


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
    head = next(iter(git_lines(root, "rev-parse", "--verify", "--quiet", "HEAD")), "")
    log = next(iter(git_lines(root, "rev-parse", "--verify", "--quiet", LOG_REF)), "")
    if not log:  # a clone
        recorded = ("rev-list", "--max-count=1", f"--grep={TRAILER}", "HEAD", "--")
        log = next(iter(git_lines(root, *recorded)), "")
    history = RecordHistory(root, head, log, (PROGRESS, "prd/approvals", results))
    if log and history.difference(log, head, PROGRESS):
        return way_of_changed_copies(history)
    if code == "journal-lacks-commit":
        return (
            f"`{fresh_clone(root)}` goes on with the committed record in a clone; "
            "commit or copy your own changes"
        )

    # 4. Only the work tree's text differs.
    if git_lines(root, "ls-tree", "HEAD", "--", PROGRESS):
        return (
            "`git cat-file blob HEAD:progress.txt > progress.txt` throws away what was changed in "
            "progress.txt; the next run restores its newest entries from the journal"
        )
    return (
        f"`mv progress.txt {free_folder(root, 'progress.txt')}` sets it aside; the next run "
        "restores its entries from the journal"
    )


def before_merge_way(root: Path, commit: str, results: str) -> str:
    """Return the command that goes back to before a merge left a commit's entries out.

    Args:
        root: the repository.
        commit: the runner's commit, in HEAD's history, whose entries HEAD's progress.txt lacks.
        results: the folder of results.
    """
    # 1. This machine's own record has them.
    abort = abort_in_progress(root)
    if abort:
        return f"`{abort}` gives up what is in progress, or finish it"
    head = git_lines(root, "rev-parse", "HEAD")[0]
    log = next(iter(git_lines(root, "rev-parse", "--verify", "--quiet", LOG_REF)), "")
    history = RecordHistory(root, head, log, (PROGRESS, "prd/approvals", results))
    if log and history.difference(log, head, PROGRESS):
        return way_of_changed_copies(history)

    # 2. HEAD's line up to the merge.
    after = set(git_lines(root, "rev-list", "--ancestry-path", f"{commit}..HEAD"))
    line = git_lines(root, "rev-list", "--first-parent", "HEAD")
    before = next((each for each in line if each not in after), commit)
    if log and log not in after and not is_ancestor(root, log, before):
        before = log  # the merge's first parent is the other record
    way = kept_aside(RecordHistory(root, head, before, ()))
    return (
        f"`{way}` goes back to before that and keeps this history as a branch; of two records that "
        "went on apart one must be given up: go on in one clone, and clone the other one anew"
    )


def unfetched_way(root: Path, head: str, log: str | None) -> str:
    """Return what to do about entries that came with no fetch, for a hint.

    Args:
        root: the repository.
        head: HEAD's commit.
        log: the runner's last commit on this machine, if there is one.
    """
    abort = abort_in_progress(root)
    if abort:
        return f"`{abort}` gives up what is in progress, or finish it"
    way = (
        "`git fetch FROM BRANCH`, with the repository and the branch where it was recorded, then "
        "type the command again"
    )
    if log:
        command = kept_aside(RecordHistory(root, head, log, ()))
        way += (
            f"; if they were made or picked here: `{command}` goes back to what this machine "
            "recorded and keeps this history as a branch"
        )
    return way


def untrailed_way(root: Path, commit: str) -> str:
    """Return the command that takes back a commit of the runner's that lost its trailers."""
    history = RecordHistory(root, git_lines(root, "rev-parse", "HEAD")[0], commit, ())
    reset = f"git reset --soft {commit[:12]}~1"
    if history.head == commit:
        return reset
    return f"{keep_branch(history)} && {reset}"


def brought_way(root: Path, commit: str, path: str) -> str | None:
    """Return the command that restores what a commit brought to the folder of a file.

    None if HEAD and the work tree have all of it.
    """
    history = RecordHistory(root, git_lines(root, "rev-parse", "HEAD")[0], commit, ())
    folder = path.rpartition("/")[0]
    brought = history.difference(f"{commit}~1", commit, folder)
    changed = brought & history.difference(commit, history.head, folder)
    for line in history.names("ls-tree", "-r", "-z", commit, "--", folder):
        description, _, name = line.partition("\t")
        file = root / name
        data = file.read_bytes() if file.is_file() else None
        blob = description.rpartition(" ")[2]
        if name in brought and (data is None or blob_id([data], len(data), blob) != blob):
            changed.add(name)
    return reviewed_way(root, commit, sorted(changed)) if changed else None


def left_out_way(root: Path, folders: Sequence[str]) -> str:
    """Return the command that brings folders into a sparse checkout, for a hint.

    Empty where no file of them is left out.
    """
    setting = git_lines(root, "config", "--type=bool", "core.sparseCheckout")
    listing = run_git(root, "ls-files", "-t", "-z", "--", *folders).stdout
    left_out = [line[2:] for line in listing.split("\0") if line.startswith("S ")]
    if setting != ["true"] or all((root / path).exists() for path in left_out):
        return ""
    command = f"git sparse-checkout add {shlex.join(folders)}"
    return f"`{command}` checks out what this sparse checkout leaves out"


def result_way(root: Path, results: str, path: str) -> str:
    """Return the command that restores the folder of a result as the runner committed it last.

    It is for a hint, and empty if HEAD and the work tree have all of it.
    """
    left_out = left_out_way(root, (results,))
    if left_out:
        return left_out
    newest = ("rev-list", "--max-count=1", f"--grep={TRAILER}", "HEAD", "--", path)
    for commit in git_lines(root, *newest):
        way = brought_way(root, commit, path)
        if way:
            return f"`{way}` restores what was recorded"
    return ""


def set_aside_way(root: Path, path: str) -> str:
    """Return the command that moves a file beside the repository, and out of HEAD."""
    name = path.rpartition("/")[2]
    word = shell_word(path)
    steps = []
    if os.path.lexists(root / path):
        steps.append(f"mv {word} {free_folder(root, name if is_printable(name) else 'set-aside')}")
    if git_lines(root, "rev-parse", "--verify", "--quiet", f"HEAD:{path}"):
        steps.append(f"git commit -qm 'Set a file aside' -- {word}")
    return " && ".join(steps)


def reviewed_way(root: Path, checkpoint: str, paths: Sequence[str]) -> str:
    """Return the command that gives files the bytes that a checkpoint has, in HEAD too.

    Args:
        root: the repository.
        checkpoint: the commit that was to be reviewed.
        paths: the files that differ from it.
    """
    history = RecordHistory(root, git_lines(root, "rev-parse", "HEAD")[0], checkpoint, ())
    added = [path for path in paths if not git_lines(root, "ls-tree", checkpoint, "--", path)]
    committed = history.difference(checkpoint, history.head)
    restored = [path for path in paths if path not in added and path in committed]
    missing = {path.rpartition("/")[0] for path in paths if not (root / path).parent.is_dir()}
    steps = [f"mkdir -p {shlex.join(sorted(missing))}"] if missing else []
    for path in paths:
        # Flags of the index and filters hide such a change from `git checkout`.
        if path not in added and path not in committed:
            name = shlex.quote(path)
            if path_problem(root / path):
                steps.append(f"mv {name} {free_folder(root, path.rpartition('/')[2])}")
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
