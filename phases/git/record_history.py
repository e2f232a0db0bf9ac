"""The commits that touched the record, read by one plain call of git: who brought which bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from phases.git.objects import GitObject, open_objects
from phases.git.probe import run_git

_COMMIT = "\x01"
"""Begins a commit in git's answer; a change of a file begins with a colon."""

_FETCHED = re.compile(r"^([0-9a-f]{40,64})\t", re.MULTILINE)
"""A line of FETCH_HEAD."""
_BROUGHT = re.compile(
    r"(fetch|pull)\b.*"
    r"(: storing head|: forced-update|: [Ff]ast-forward| \(start\): checkout [0-9a-f]+)"
)
"""A line of a reflog that went to a commit of another repository."""
_MERGED = re.compile(r"pull\b.*: Merge made by ")
"""A line of a reflog that merged one."""


@dataclass(frozen=True)
class RecordCommit:
    """A commit that touched the record."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    trailers: Mapping[str, str]
    blobs: Mapping[str, str]
    """Path that it changed, of the record or of all -> id of the blob it left there, zeros for
    none. Empty for a merge, which is never the runner's."""


def read_record_history(
    root: Path,
    paths: Iterable[str],
    begin: str | None = None,
    *,
    is_full: bool = False,
    with_others: bool = False,
) -> tuple[RecordCommit, ...]:
    """Return the commits of HEAD's history that touched files of the record, oldest first.

    A merge is listed only if what it holds is in none of its parents.

    Args:
        root: the repository.
        paths: the files of the record.
        begin: a commit before the record's first one. It and those before it are not walked: a
            repository may have a long history.
        is_full: whether to walk every parent of every merge; else only the first one that has the
            files as the merge has them, which hides what the merge left out.
        with_others: whether to list what else each of these commits changed.
    """
    # NUL ends every field, since a message holds any other byte.
    form = f"{_COMMIT}%H%x00%T%x00%P%x00%(trailers:only,unfold)%x00"
    options = ["--topo-order", "--reverse", "--no-renames", "--raw", "--no-abbrev", "-z"]
    revisions = ["HEAD"]
    if is_full:
        options.append("--full-history")
    if with_others:
        options.append("--full-diff")
    if begin:
        options.append("--ignore-missing")
        revisions.append(f"^{begin}")
    answer = run_git(root, "log", *options, f"--format={form}", *revisions, "--", *paths)
    return tuple(_parse_commits(iter(answer.stdout.split("\0"))))


def _parse_commits(tokens: Iterator[str]) -> Iterator[RecordCommit]:
    commit: RecordCommit | None = None
    blobs: dict[str, str] = {}
    for line in tokens:
        token = line.lstrip("\n")  # one is between a commit and its first change
        if token.startswith(_COMMIT):
            if commit is not None:
                yield commit
            blobs = {}
            tree, parents, trailers = next(tokens), next(tokens), next(tokens)
            sha = token.removeprefix(_COMMIT)
            commit = RecordCommit(
                sha, tree, tuple(parents.split()), parse_trailers(trailers), blobs
            )
        elif token.startswith(":"):
            # `:OLD-MODE NEW-MODE OLD-ID NEW-ID STATUS`
            blobs[next(tokens)] = token.split(" ")[3]
    if commit is not None:
        yield commit


def parse_trailers(text: str) -> dict[str, str]:
    """Return the trailers of a message, as git prints them: one `Name: value` a line."""
    trailers = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            trailers[name.strip()] = value.strip()
    return trailers


def read_objects(root: Path, names: Iterable[str]) -> dict[str, GitObject | None]:
    """Return name (such as `COMMIT:PATH`) -> its object, or None; for few and small objects."""
    objects: dict[str, GitObject | None] = dict.fromkeys(names)
    if objects:
        with open_objects(root) as reader:
            objects = dict(zip(objects, reader.find_many(objects), strict=True))
    return objects


def read_ids(root: Path, names: Iterable[str]) -> dict[str, str | None]:
    """Return name (such as `COMMIT:PATH`) -> id of its object, or None, by one call of git."""
    ids: dict[str, str | None] = dict.fromkeys(names)
    asked = [name for name in ids if "\n" not in name]  # git reads one name a line
    if not asked:
        return ids
    questions = "".join(f"{name}\n" for name in asked)
    # git answers a name that it does not know with the name itself, and `missing`.
    answer = run_git(root, "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=questions)
    for name, line in zip(asked, answer.stdout.split("\n"), strict=False):
        object_id, _, kind = line.rpartition(" ")
        if kind in ("blob", "tree", "commit", "tag"):
            ids[name] = object_id
    return ids


def is_ancestor(root: Path, older: str, newer: str) -> bool:
    """Return whether `older` is `newer` or an ancestor of it; False if it does not exist."""
    return run_git(root, "merge-base", "--is-ancestor", older, newer).returncode == 0


def root_commits(root: Path) -> list[str]:
    """Return the first commits of all histories that were merged into HEAD's."""
    return run_git(root, "rev-list", "--max-parents=0", "HEAD", "--").stdout.split()


def is_fetched(root: Path, common_dir: Path, commit: str) -> bool:
    """Return whether a commit came from another repository.

    It did if a remote-tracking branch has it, or what was fetched or pulled, by FETCH_HEAD of any
    work tree or by the reflogs: the next fetch replaces FETCH_HEAD, and prunes branches.
    """
    tips = _pulled_tips(root)
    for file in (common_dir / "FETCH_HEAD", *common_dir.glob("worktrees/*/FETCH_HEAD")):
        if file.is_file():
            tips |= set(_FETCHED.findall(file.read_text("utf-8", "replace")))
    excluded = "".join(f"^{tip}\n" for tip in sorted(tips))
    options = ("--max-count=1", "--ignore-missing", "--stdin", commit, "--not", "--remotes")
    answer = run_git(root, "rev-list", *options, stdin=excluded)
    return answer.returncode == 0 and not answer.stdout


def _pulled_tips(root: Path) -> set[str]:
    """Return the commits that fetches and pulls brought, by the reflogs of all work trees.

    What a merge of a branch, a commit, a reset or the picks of a rebase brought was made here.
    """
    tips = set()
    options = ("--walk-reflogs", "--all", "--format=%H%x09%P%x09%gs")
    # Not `splitlines`: a subject may hold what Python takes for the end of a line.
    for line in filter(None, run_git(root, "log", *options).stdout.split("\n")):
        commit, parents, message = line.split("\t", 2)
        if _BROUGHT.fullmatch(message):
            tips.add(commit)
        elif _MERGED.match(message):
            tips.update(parents.split()[1:])
    return tips
