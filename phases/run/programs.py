"""Programs that the plan names by a path, such as `.venv/bin/python`.

git ignores an environment, so a copy of a commit has none: such a path means the file in the
repository. Only programs are taken from there: executable files that git ignores. Data and sources
come from the commit.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.errors import EnvironmentFaultError
from phases.execution.command_line import COMMAND_WORD
from phases.git.tree import CommitTree, Tree
from phases.run.imports import OWN_INTERPRETER, Interpreter, other_interpreter


@dataclass(frozen=True)
class ResolvedCommand:
    """A shell command whose programs are named by absolute paths."""

    text: str
    programs: Mapping[str, str]
    """Path as the plan writes it -> SHA-256 of the program."""
    interpreters: tuple[Interpreter, ...]
    """The Pythons that it may start: the runner's, and those of environments that it names."""

    @property
    def materials(self) -> dict[str, Mapping[str, str]]:
        """URI of each program -> digest set, for the receipt."""
        return {f"program:{path}": {"sha256": digest} for path, digest in self.programs.items()}


def resolve_programs(command: str, tree: Tree) -> ResolvedCommand:
    """Return the command with absolute paths for programs that are not in the commit.

    In the work tree the command runs as it is written.

    Raises:
        EnvironmentFaultError: a program is quoted, and its absolute path cannot be.
    """
    if not isinstance(tree, CommitTree):
        return ResolvedCommand(command, {}, ())
    programs: dict[str, str] = {}
    interpreters = {sys.executable: OWN_INTERPRETER}
    root = tree.repo.root

    def resolve(match: re.Match[str]) -> str:
        word = match.group()
        file = root / word
        is_program = _is_program(word, tree)
        is_own = file == Path(sys.executable)
        if is_program or (word.startswith("/") and _is_executable(file) and not is_own):
            interpreter = other_interpreter(file)
            if interpreter is not None:
                interpreters[interpreter.python] = interpreter
        if not is_program:
            return word
        programs[word] = durable.sha256_file(file)
        return _quoted(str(file), is_in_quotes=_ends_in_quotes(command[: match.start()]))

    text = COMMAND_WORD.sub(resolve, command)
    return ResolvedCommand(text, programs, tuple(interpreters.values()))


def _quoted(file: str, *, is_in_quotes: bool) -> str:
    """Return a path for the shell; in quotes it is part of a longer word, and stays as it is."""
    quoted = shlex.quote(file)
    if not is_in_quotes:
        return quoted
    if quoted == file:
        return file
    raise EnvironmentFaultError(
        f"the command has a program in quotes, and its path cannot be in them: {file}",
        hint="write the program without quotes in the plan, or move the repository",
    )


def _ends_in_quotes(command: str) -> bool:
    """Return whether the shell is inside of quotes at the end of the beginning of a command."""
    quote = ""
    is_escaped = False
    for character in command:
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif character == quote:
            quote = ""
        elif character in ("'", '"') and not quote:
            quote = character
    return bool(quote)


def _is_program(word: str, tree: CommitTree) -> bool:
    """Return whether a word is a path to a program that the commit does not have.

    That is an executable file, or any file beside the programs of an environment, as `activate`.
    What git does not ignore is a file that somebody forgot to commit. After a `cd` the word may
    mean a file of the commit.
    """
    path = os.path.normpath(word)
    if "/" not in word or path.startswith(("/", "..")):
        return False
    if any(f"/{known}".endswith(f"/{path}") for known in tree.entries):
        return False
    file = tree.repo.root / path
    is_of_environment = (file.parent.parent / "pyvenv.cfg").is_file() and file.is_file()
    if not is_of_environment and not _is_executable(file):
        return False
    return path not in tree.repo.untracked()


def _is_executable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.X_OK)


#### PATH


def path_in_copy(tree: CommitTree, copy: Path) -> str:
    """Return PATH for an experiment: folders of the commit are those of the copy."""
    entries = []
    for entry, inside in _path_entries(tree):
        entries.append(entry if inside is None else str(copy / inside))
    return os.pathsep.join(entries)


def path_without_commit(tree: CommitTree) -> str:
    """Return PATH for a gate: no folder of the commit, and none relative to the outputs."""
    entries = []
    for entry, inside in _path_entries(tree):
        if inside is None and entry.startswith("/"):
            entries.append(entry)
    return os.pathsep.join(entries)


def path_folders(tree: CommitTree) -> set[str]:
    """Return the folders of PATH that are in the repository, whether the commit has them or not."""
    paths = (_path_in_repository(entry, tree) for entry in _search_path())
    return {path for path in paths if path is not None}


def _path_entries(tree: CommitTree) -> Iterator[tuple[str, str | None]]:
    """Yield the folders of PATH, each with its path in the commit or None."""
    for entry in _search_path():
        inside = _path_in_repository(entry, tree) if entry.startswith("/") else None
        if inside is not None and inside != "." and not tree.files(inside):
            inside = None  # git has nothing there: an environment, or tools that it ignores
        yield entry, inside


def _search_path() -> list[str]:
    """Return the folders of PATH, the runner's first."""
    search_path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return list(dict.fromkeys([str(Path(sys.executable).parent), *filter(None, search_path)]))


def _path_in_repository(entry: str, tree: CommitTree) -> str | None:
    folder, root = Path(entry).resolve(), tree.repo.root.resolve()
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else None
