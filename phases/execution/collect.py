"""Checks what an experiment left in its output folder, before any of it is hashed into a receipt or committed.

Nothing that a worker wrote is followed or believed: each entry is project relative to its folder without following
links, and must be an ordinary file of its own with an ordinary name that the PRD declared. All problems are told at
once. The rules on names and patterns are pure functions; only `_walk` and `_take` touch the disk.
"""

from __future__ import annotations

import hashlib
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
    ".csv",
    ".yaml",
    ".py",
)
"""What outputs may be. Never pickles (.pt .pkl .bin .npy …): to read one is to run it."""

MAX_COMMITTED = 5_000_000  # bytes of everything outside artifacts/, which goes into git
MAX_STORED = 64_000_000_000  # bytes of everything; a sparse file can claim more than a disk holds
MAX_ENTRIES = 10_000  # files and folders
MAX_DEPTH = 16  # folders
MAX_PATH = 240  # bytes
RESERVED = ("receipt.json", "verdict.json", "attempts")
"""Top-level names that the runner itself writes beside the outputs."""
MAX_PROBLEMS = 50  # shown of one check


class Output(NamedTuple):
    """One file as it was read."""

    sha256: str
    size: int


Outputs = Mapping[str, Output]
"""Path relative to the output folder, with `/`, -> digest and size in bytes; sorted by path, not to be changed."""


class OutputsError(PhasesError):
    """The outputs are not what was declared; `problems` holds all reasons."""

    def __init__(self, problems: Sequence[str]):
        beyond = len(problems) - MAX_PROBLEMS
        self.problems = [
            *problems[:MAX_PROBLEMS],
            *([f"… and {beyond} more"] if beyond > 0 else []),
        ]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listing = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"outputs: {count}\n{listing}",
            hint="mend the experiment, or its `outputs` in the PRD; then run it again",
        )


def collect_outputs(out: Path, declared: Sequence[str]) -> Outputs:
    """Reads every file below `out` once and returns digests and sizes; raises OutputsError with all problems.

    Nothing is read before every name and every kind is in order.
    """
    entries = list(_walk(out))
    files = [entry for entry in entries if not entry.is_folder]
    names = [entry.path for entry in entries]
    problems = [problem for pattern in declared for problem in pattern_problems(pattern)]
    problems += [f"{printable(entry.path)}: {entry.problem}" for entry in entries if entry.problem]
    problems += [problem for name in names for problem in name_problems(name)]
    problems += collisions(names)
    problems += suffix_problems(entry.path for entry in files)
    problems += declaration_problems([entry.path for entry in files], declared)
    problems += size_problems({entry.path: entry.size for entry in files})
    if len(entries) > MAX_ENTRIES:
        problems.append(
            f"more than {MAX_ENTRIES} files and folders, the rest was not looked at; wanted fewer"
        )
    if problems:
        raise OutputsError(problems)
    outputs = {entry.path: _read(out / entry.path, entry.size) for entry in sorted(files)}
    if "result.json" in outputs:
        problems = result_problems((out / "result.json").read_bytes())
    if problems:
        raise OutputsError(problems)
    return MappingProxyType(outputs)


def is_artifact(path: str) -> bool:
    """Whether the file is stored by digest instead of committed."""
    return path.startswith("artifacts/")


#### rules: pure


def matches(pattern: str, path: str) -> bool:
    """Whether a declared pattern names this path: `*` and `?` stay in one folder, a part `**` spans folders.

    `figures/*` names figures/a.png and not figures/x/a.png; `artifacts/**` names everything below artifacts.
    """
    return _compiled(pattern).fullmatch(path) is not None


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = pattern.split("/")
    regex = ""
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        if part == "**":
            regex += ".+" if is_last else "(?:[^/]+/)*"
        else:
            regex += "".join(
                {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)) for char in part
            )
            regex += "" if is_last else "/"
    return re.compile(regex, re.DOTALL)


def pattern_problems(pattern: str) -> Iterator[str]:
    """Why a declared pattern cannot be used."""
    parts = pattern.split("/")
    if not pattern or any(part in ("", ".", "..") for part in parts):
        yield f"declared output {printable(pattern)!r}: wanted a path relative to the output folder without . or .."
    elif any("**" in part and part != "**" for part in parts):
        yield f"declared output {printable(pattern)!r}: ** must stand alone between slashes"


def name_problems(path: str) -> Iterator[str]:
    """Why a path is not one to commit: it could hide, mislead a reader, or mean something to git or a shell."""
    shown = printable(path)
    if any("\udc80" <= char <= "\udcff" for char in path):
        yield f"{shown}: the name is not UTF-8"
    elif not path.isprintable() or "\\" in path:
        yield f"{shown}: the name holds control, invisible or backslash characters"
    elif path != unicodedata.normalize("NFC", path):
        yield f"{shown}: the name is not in Unicode's composed form (NFC), so two systems spell it differently"
    name = path.rpartition("/")[2]
    if name.startswith("."):
        yield f"{shown}: hidden files and folders (.git among them) are no outputs"
    elif name != name.strip() or name.startswith("-"):
        yield f"{shown}: the name begins or ends with a space, or begins with a dash"
    if path.split("/", maxsplit=1)[0].casefold() in RESERVED:
        yield f"{shown}: the runner writes this name itself; wanted another"
    if len(path.encode("utf-8", "surrogateescape")) > MAX_PATH:
        yield f"{shown}: a path of more than {MAX_PATH} bytes"


def collisions(paths: Iterable[str]) -> Iterator[str]:
    """Paths that are one and the same on a file system that ignores case (macOS, Windows)."""
    same: dict[str, list[str]] = {}
    for path in paths:
        same.setdefault(unicodedata.normalize("NFC", path).casefold(), []).append(path)
    for group in same.values():
        if len(group) > 1:
            yield f"{', '.join(map(printable, sorted(group)))}: names that differ only in upper and lower case"


def suffix_problems(paths: Iterable[str]) -> Iterator[str]:
    """Files of a kind that is not an output."""
    for path in paths:
        if not path.endswith(SUFFIXES):
            yield f"{printable(path)}: not a kind of file that is kept; wanted one of {' '.join(SUFFIXES)}"


def declaration_problems(paths: Sequence[str], declared: Sequence[str]) -> Iterator[str]:
    """What is declared and absent, and what is present and not declared."""
    for pattern in declared:
        if not set(pattern) & set("*?") and pattern not in paths:
            yield f"{printable(pattern)}: declared in the PRD and not written by the experiment"
    for path in paths:
        if not any(matches(pattern, path) for pattern in declared):
            yield f"{printable(path)}: written and not declared; the PRD's outputs are {' '.join(declared)}"


def size_problems(sizes: Mapping[str, int]) -> Iterator[str]:
    """More files or bytes than are committed and stored."""
    total = sum(sizes.values())
    if total > MAX_STORED:
        yield f"{total} bytes in all; at most {MAX_STORED} are kept"
    committed = {path: size for path, size in sizes.items() if not is_artifact(path)}
    if sum(committed.values()) > MAX_COMMITTED:
        largest = sorted(committed, key=committed.__getitem__, reverse=True)[:3]
        listing = ", ".join(f"{printable(path)} {committed[path]}" for path in largest)
        yield (
            f"{sum(committed.values())} bytes outside artifacts/ would be committed; at most {MAX_COMMITTED} "
            f"(largest: {listing})"
        )


def result_problems(data: bytes) -> list[str]:
    """Why result.json is not a strict JSON object."""
    try:
        value = strict_json.loads(data)
    except strict_json.StrictJsonError as error:
        return [f"result.json: {printable(problem)}" for problem in error.problems]
    return (
        []
        if isinstance(value, dict)
        else [f"result.json: a {type(value).__name__}; wanted an object"]
    )


#### the disk


class _Entry(NamedTuple):
    """What the walk met: a file, or a folder, and why it cannot be taken."""

    path: str
    is_folder: bool
    size: int
    problem: str


def _walk(out: Path) -> Iterator[_Entry]:
    """Every entry below `out`; a folder is project through its parent's descriptor, so a link is never crossed."""
    try:
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise OutputsError(
            [f"the output folder itself cannot be read: {error.strerror}"]
        ) from error
    try:
        yield from islice(_walk_folder(descriptor, "", MAX_DEPTH), MAX_ENTRIES + 1)
    finally:
        os.close(descriptor)


def _walk_folder(descriptor: int, prefix: str, depth: int) -> Iterator[_Entry]:
    for name in sorted(os.listdir(descriptor)):
        path = prefix + name
        try:
            met = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError as error:
            yield _Entry(path, False, 0, f"cannot be looked at: {error.strerror}")
            continue
        if not stat.S_ISDIR(met.st_mode):
            yield _Entry(path, False, met.st_size, _kind_problem(met))
        elif depth == 0:
            yield _Entry(path, True, 0, f"folders nested deeper than {MAX_DEPTH}")
        else:
            try:
                inner = os.open(
                    name,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                    dir_fd=descriptor,
                )
            except OSError as error:
                yield _Entry(path, True, 0, f"the folder cannot be read: {error.strerror}")
                continue
            yield _Entry(path, True, 0, "")
            try:
                yield from _walk_folder(inner, f"{path}/", depth - 1)
            finally:
                os.close(inner)


def _kind_problem(met: os.stat_result) -> str:
    if not stat.S_ISREG(met.st_mode):
        return f"{_KINDS.get(stat.S_IFMT(met.st_mode), 'a special file')}; wanted a regular file"
    if met.st_nlink > 1:
        return f"{met.st_nlink} hard links to one file; wanted a file of its own"
    return ""


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _read(path: Path, size: int) -> Output:
    """Digest and size of a file; OutputsError if it cannot be read or is not what the walk met."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OutputsError([f"{printable(path.name)}: cannot be read: {error.strerror}"]) from error
    with os.fdopen(descriptor, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        met = os.fstat(descriptor)
        if _kind_problem(met) or met.st_size != size or file.tell() != size:
            raise OutputsError(
                [
                    f"{printable(path.name)}: changed while it was read ({size}, then {met.st_size} bytes)"
                ]
            )
    return Output(digest, size)
