"""Git processes of this machine, and the repository in which each of them works.

Where a git process works is what git answers in its working directory, with its own `--git-dir` and
`GIT_DIR`: by their paths alone, linked worktrees, separate git directories and submodules would
look like other repositories.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phases.base.text import printable
from phases.git.objects import READERS
from phases.git.probe import git_environment, git_options

if TYPE_CHECKING:
    import psutil

_ANSWER_S = 20.0
_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
)
"""Variables by which git finds a repository and its index."""
_OPTION_VARIABLES = {"--git-dir": "GIT_DIR", "--work-tree": "GIT_WORK_TREE"}
_OPTIONS_WITH_VALUE = (
    *_OPTION_VARIABLES,
    *("-C", "-c", "--config-env", "--namespace", "--super-prefix", "--attr-source"),
)
"""Options of git before its command that take the next word as their value."""
_NO_REPOSITORY = "fatal: not a git repository (or any"
"""What git prints where neither the directory nor one above it has a repository."""


@dataclass(frozen=True)
class WorkedRepository:
    """A repository as a git process in it sees it."""

    common_dir: Path
    git_dir: Path
    index: Path

    def may_lock(self, lock: Path, common_dir: Path) -> bool:
        """Return whether git takes this lock there; `common_dir` is that of the lock.

        Worktrees share refs and HEADs (`git branch -m` writes all of these), and no index.
        """
        index_lock = self.index.with_name(self.index.name + ".lock")
        if lock.name == index_lock.name and _is_same(lock.parent, index_lock.parent):
            return True
        if not _is_same(self.common_dir, common_dir):
            return False
        is_of_index = "index" in lock.name and not lock.is_relative_to(common_dir / "refs")
        return not is_of_index or _is_same(self.git_dir, lock.parent)


@dataclass(frozen=True)
class GitProcess:
    """A git process that runs."""

    pid: int
    command: str
    repositories: tuple[WorkedRepository, ...] | None
    """Those in which it may work; None if that cannot be determined."""

    def may_own(self, lock: Path, common_dir: Path) -> bool:
        """Return whether it may have taken this lock of the repository with `common_dir`."""
        if self.repositories is None:
            return True
        return any(repository.may_lock(lock, common_dir) for repository in self.repositories)

    def __str__(self) -> str:
        return f"pid {self.pid} ({printable(self.command)})"


def git_processes() -> list[GitProcess]:
    """Return every git process of this machine, of any user, that has not ended.

    Left out are those by which this runner reads objects: they lock nothing.
    """
    import psutil

    candidates = []
    for process in psutil.process_iter(["name"]):
        is_git = str(process.info["name"] or "").startswith("git")
        if is_git and process.pid not in READERS:
            candidates.append(process)
    processes = []
    for process in candidates:
        command, repositories = "git of another user", None
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            command = " ".join(process.cmdline()) or process.name()
            repositories = _worked_repositories(process)
        # It may have ended meanwhile. A zombie has ended too; it holds no lock.
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(GitProcess(process.pid, command, repositories))
    return processes


def _worked_repositories(process: psutil.Process) -> tuple[WorkedRepository, ...] | None:
    """Return where a git process may work; None if that cannot be determined."""
    # 1. How it finds its repository. By `-C` it has changed its directory already.
    directory = Path(process.cwd())
    if not _sees_same_files(process.pid, directory):
        return None
    environment = process.environ()
    variables = {name: environment[name] for name in _VARIABLES if name in environment}
    start = Path(environment.get("PWD", directory))
    for option, value in _options(process.cmdline()):
        if option == "-C":
            start /= value
        elif option in _OPTION_VARIABLES:
            variables[_OPTION_VARIABLES[option]] = value

    # 2. Mostly that is certain.
    is_relative = not Path(variables.get("GIT_DIR", "/")).is_absolute()
    if not is_relative and "GIT_WORK_TREE" not in variables:
        answer = _ask(directory, variables)
        if isinstance(answer, WorkedRepository):
            return (answer,)
        return () if answer.startswith(_NO_REPOSITORY) else None

    # 3. Else it may have gone to its work tree since, and the path is relative to where it began.
    answers = [_ask(directory, variables), _ask(start, variables), _ask(directory, {})]
    repositories = tuple(item for item in answers if isinstance(item, WorkedRepository))
    return repositories or None


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return option and value of everything before git's command."""
    options = []
    rest = list(words[1:])
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if not equals and option in _OPTIONS_WITH_VALUE and rest:
            value = rest.pop(0)
        options.append((option, value))
    return options


def _ask(directory: Path, variables: Mapping[str, str]) -> WorkedRepository | str:
    """Ask git which repository it would work in; return what it printed where that failed."""
    answers = []
    for question in (["--git-common-dir"], ["--git-dir"], ["--git-path", "index"]):
        # One call for each: a path may contain line breaks.
        try:
            result = subprocess.run(
                ["git", *git_options(), "rev-parse", "--path-format=absolute", *question],
                cwd=directory,
                env={**git_environment(), **variables},
                encoding="utf-8",
                errors="surrogateescape",
                capture_output=True,
                timeout=_ANSWER_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return str(error)
        if result.returncode:
            return result.stderr
        answers.append(Path(result.stdout.removesuffix("\n")))
    common_dir, git_dir, index = answers
    return WorkedRepository(common_dir, git_dir, index)


def _sees_same_files(pid: int, directory: Path) -> bool:
    """Return whether paths name the same files for this process and for that one.

    They do not in another container, below another root or after its directory was replaced.
    """
    if not Path("/proc/self/ns/mnt").exists():
        return True
    own, other = Path("/proc/self"), Path("/proc", str(pid))
    pairs = ((own / "ns/mnt", other / "ns/mnt"), (own / "root", other / "root"))
    return all(_is_same(*pair) for pair in (*pairs, (directory, other / "cwd")))


def _is_same(path: Path, other: Path) -> bool:
    """Return whether both paths name one file; False if one of them does not exist."""
    try:
        return path.samefile(other)
    except OSError:
        return False
