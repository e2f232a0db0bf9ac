"""Check what an experiment left in its output folder, before any of it is hashed or committed.

Nothing that a worker wrote is followed or trusted: each entry is opened relative to its folder
without following links, and must be a regular file with an ordinary name that the plan declared.
All problems are reported at once. The rules on names and patterns are pure functions; only `_walk`
and `_read` touch the disk.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from phases.base import strict_json
from phases.base.durable import sha256_stream
from phases.base.paths import is_artifact
from phases.base.regular_file import mode_problem
from phases.base.text import printable
from phases.errors import PhasesError

SUFFIXES = (
    ".safetensors",
    ".json",
    ".jsonl",
    ".txt",
    ".md",
    ".png",
    ".svg",
    ".html",
    ".csv",
    ".yaml",
    ".py",
)
"""What outputs may be. Never pickles (.pt .pkl .bin .npy …): to read one is to run it."""

MAX_COMMITTED = 5_000_000  # bytes of everything outside artifacts/, which goes into git
MAX_STORED = 64_000_000_000  # bytes of everything; a sparse file can claim more than a disk has
MAX_FILES = 10_000
MAX_ENTRIES = 20_000  # files and folders
MAX_DEPTH = 16  # folders
MAX_PATH = 240  # bytes
RESERVED = ("receipt.json", "verdict.json", "attempts")
"""Top-level names that the runner itself writes beside the outputs."""
MAX_PROBLEMS = 50  # listed in one error


class Output(NamedTuple):
    """One file as it was read."""

    sha256: str
    size: int


Outputs = Mapping[str, Output]
"""Path relative to the output folder, with `/` -> digest and size in bytes; sorted by path,
read-only."""


class OutputsError(PhasesError):
    """The outputs are not what was declared; `problems` lists all reasons."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems[:MAX_PROBLEMS])
        if len(problems) > MAX_PROBLEMS:
            self.problems.append(f"… and {len(problems) - MAX_PROBLEMS} more")
        count = f"{len(problems)} problems"
        if len(problems) == 1:
            count = "1 problem"
        listing = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"outputs: {count}\n{listing}",
            hint="fix the experiment, or its `outputs` in the plan; then run it again",
        )


def collect_outputs(out: Path, declared: Sequence[str]) -> Outputs:
    """Read every file below `out` once; return digests and sizes.

    Nothing is read before every name and every kind is in order. All problems are raised together,
    unless there are too many entries to look at.

    Args:
        out: the output folder.
        declared: the patterns of the plan's `outputs`.

    Raises:
        OutputsError: with all problems.
    """
    # 1. Names, kinds and sizes of everything there is.
    entries = list(_walk(out))
    if len(entries) > MAX_ENTRIES:
        problem = f"more than {MAX_ENTRIES} files and folders; expected at most {MAX_FILES} files"
        raise OutputsError([f"{problem}; nothing else was checked"])
    files = [entry for entry in entries if not entry.is_folder]
    paths = [entry.path for entry in entries]
    file_paths = [entry.path for entry in files]
    problems: list[str] = []
    if len(files) > MAX_FILES:
        problems.append(f"{len(files)} files; expected at most {MAX_FILES}")
    for pattern in declared:
        problems += pattern_problems(pattern)
    for entry in entries:
        if entry.problem:
            problems.append(f"{printable(entry.path)}: {entry.problem}")
    for path in paths:
        problems += name_problems(path)
    problems += name_collisions(paths)
    problems += suffix_problems(file_paths)
    problems += declaration_problems(file_paths, declared)
    problems += size_problems({entry.path: entry.size for entry in files})
    if problems:
        raise OutputsError(problems)

    # 2. The bytes.
    outputs = {entry.path: _read(out / entry.path, entry.size) for entry in sorted(files)}
    if "result.json" in outputs:
        problems = result_problems((out / "result.json").read_bytes())
        if problems:
            raise OutputsError(problems)
    return MappingProxyType(outputs)


#### rules: pure


def matches(pattern: str, path: str) -> bool:
    """Return whether a declared pattern names this path.

    `*` and `?` stay in one folder, a part `**` spans folders: `figures/*` names figures/a.png and
    not figures/x/a.png; `artifacts/**` names everything below artifacts.
    """
    *folders, last = pattern.split("/")
    regex = ""
    for part in folders:
        if part == "**":
            regex += "(?:[^/]+/)*"
        else:
            regex += _part_regex(part) + "/"
    if last == "**":
        regex += ".+"
    else:
        regex += _part_regex(last)
    return re.fullmatch(regex, path, re.DOTALL) is not None


def _part_regex(part: str) -> str:
    """Return the regular expression of one part of a pattern."""
    wildcards = {"*": "[^/]*", "?": "[^/]"}
    return "".join(wildcards.get(char, re.escape(char)) for char in part)


def pattern_problems(pattern: str) -> Iterator[str]:
    """Yield why a declared pattern cannot be used."""
    parts = pattern.split("/")
    name = f"declared output {printable(pattern)!r}"
    if any(part in ("", ".", "..") for part in parts):
        yield f"{name}: expected a path relative to the output folder without . or .."
    elif any("**" in part and part != "**" for part in parts):
        yield f"{name}: expected ** alone between slashes"


def name_problems(path: str) -> Iterator[str]:
    """Yield why a path is not one to commit.

    It could hide, mislead a reader, or mean something to git or a shell.
    """
    line = printable(path)
    # 1. Its characters.
    if any("\udc80" <= char <= "\udcff" for char in path):
        yield f"{line}: the name is not UTF-8"
    elif not path.isprintable() or "\\" in path:
        yield f"{line}: the name contains control, invisible or backslash characters"
    elif path != unicodedata.normalize("NFC", path):
        yield (
            f"{line}: the name is not in Unicode's composed form (NFC), so two systems spell it "
            "differently"
        )
    # 2. Its last part.
    name = path.rpartition("/")[2]
    if name.startswith("."):
        yield f"{line}: hidden files and folders (.git among them) are no outputs"
    elif name != name.strip() or name.startswith("-"):
        yield f"{line}: the name begins or ends with a space, or begins with a dash"
    # 3. Its place in the results folder.
    if path.split("/", maxsplit=1)[0].casefold() in RESERVED:
        yield f"{line}: the runner writes this name itself; expected another"
    if len(path.encode("utf-8", "surrogateescape")) > MAX_PATH:
        yield f"{line}: a path of more than {MAX_PATH} bytes"


def name_collisions(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths that are the same on a file system that ignores case (macOS, Windows)."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        key = unicodedata.normalize("NFC", path).casefold()
        groups.setdefault(key, []).append(path)
    for group in groups.values():
        if len(group) > 1:
            names = ", ".join(map(printable, sorted(group)))
            yield f"{names}: names that differ only in upper and lower case"


def suffix_problems(paths: Iterable[str]) -> Iterator[str]:
    """Yield files of a kind that is not an output."""
    for path in paths:
        if not path.endswith(SUFFIXES):
            suffixes = " ".join(SUFFIXES)
            yield f"{printable(path)}: not an allowed kind of file; expected one of {suffixes}"


def declaration_problems(paths: Sequence[str], declared: Sequence[str]) -> Iterator[str]:
    """Yield what is declared and absent, and what is present and not declared."""
    for pattern in declared:
        is_wildcard = "*" in pattern or "?" in pattern
        if not is_wildcard and pattern not in paths:
            yield f"{printable(pattern)}: declared in the plan and not written by the experiment"
    for path in paths:
        if not any(matches(pattern, path) for pattern in declared):
            patterns = " ".join(declared)
            yield f"{printable(path)}: written and not declared; the plan's outputs are {patterns}"


def size_problems(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield why there are more bytes than are committed and stored.

    Args:
        sizes: path of each file -> its size in bytes.
    """
    total = sum(sizes.values())
    if total > MAX_STORED:
        yield f"{total} bytes in all; expected at most {MAX_STORED}"
    committed_sizes = {path: size for path, size in sizes.items() if not is_artifact(path)}
    committed_total = sum(committed_sizes.values())
    if committed_total > MAX_COMMITTED:
        largest_paths = sorted(committed_sizes, key=committed_sizes.__getitem__, reverse=True)[:3]
        listing = ", ".join(f"{printable(path)} {committed_sizes[path]}" for path in largest_paths)
        yield (
            f"{committed_total} bytes outside artifacts/ would be committed; "
            f"expected at most {MAX_COMMITTED} (largest: {listing})"
        )


def result_problems(data: bytes) -> list[str]:
    """Return why the bytes of result.json are not a strict JSON object."""
    try:
        document = strict_json.loads(data)
    except strict_json.StrictJsonError as error:
        return [f"result.json: {printable(problem)}" for problem in error.problems]
    if isinstance(document, dict):
        return []
    return [f"result.json: got a {type(document).__name__}; expected an object"]


#### the disk


_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _OutputEntry(NamedTuple):
    """One entry of the walk: a file or a folder, and why it cannot be taken."""

    path: str
    is_folder: bool
    size: int = 0
    problem: str = ""


def _walk(out: Path) -> Iterator[_OutputEntry]:
    """Yield every entry below `out`, at most one more than allowed."""
    try:
        descriptor = os.open(out, _OPEN_FOLDER)
    except OSError as error:
        message = f"the output folder itself cannot be read: {error.strerror}"
        raise OutputsError([message]) from error
    try:
        yield from islice(_walk_folder(descriptor, "", MAX_DEPTH), MAX_ENTRIES + 1)
    finally:
        os.close(descriptor)


def _walk_folder(descriptor: int, prefix: str, depth: int) -> Iterator[_OutputEntry]:
    """Yield every entry of a folder and what is below it.

    Args:
        descriptor: the folder. Its subfolders are opened through it, so a link is never crossed.
        prefix: its path with a slash, empty for the output folder.
        depth: how many levels of folders may follow.
    """
    for name in sorted(os.listdir(descriptor)):
        path = prefix + name
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            yield _OutputEntry(path, is_folder=False, problem=problem)
            continue
        if not stat.S_ISDIR(status.st_mode):
            problem = _kind_problem(status)
            yield _OutputEntry(path, is_folder=False, size=status.st_size, problem=problem)
            continue
        if depth == 0:
            problem = f"folders nested deeper than {MAX_DEPTH}"
            yield _OutputEntry(path, is_folder=True, problem=problem)
            continue
        try:
            subfolder = os.open(name, _OPEN_FOLDER, dir_fd=descriptor)
        except OSError as error:
            problem = f"the folder cannot be read: {error.strerror}"
            yield _OutputEntry(path, is_folder=True, problem=problem)
            continue
        yield _OutputEntry(path, is_folder=True)
        try:
            yield from _walk_folder(subfolder, f"{path}/", depth - 1)
        finally:
            os.close(subfolder)


def _kind_problem(status: os.stat_result) -> str:
    """Return why an entry is no regular file of its own; empty if it is one."""
    problem = mode_problem(status.st_mode)
    if not problem and status.st_nlink > 1:
        problem = f"got a file with {status.st_nlink} hard links; expected a file of its own"
    return problem


def _read(path: Path, size: int) -> Output:
    """Return digest and size of a file; OutputsError if it is not the one that was walked over."""
    try:
        # Without O_NONBLOCK a FIFO that took the file's place would stop the runner here.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        message = f"{printable(path.name)}: cannot be read: {error.strerror}"
        raise OutputsError([message]) from error
    with os.fdopen(descriptor, "rb") as file:
        digest = sha256_stream(file)
        status = os.fstat(descriptor)
        if _kind_problem(status) or status.st_size != size or file.tell() != size:
            message = (
                f"{printable(path.name)}: changed while it was read "
                f"({size}, then {status.st_size} bytes)"
            )
            raise OutputsError([message])
    return Output(digest, size)
