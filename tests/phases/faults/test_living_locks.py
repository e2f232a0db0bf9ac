"""Locks of git processes that are alive are never deleted, wherever those work; dead ones are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from converging import git_shim
from quick import Quick

from phases.errors import EnvironmentFaultError
from phases.git.lock_files import clear_stale_locks, lock_note, lock_paths
from phases.git.probe import LOG_REF, probe_repository
from phases.git.processes import git_processes

KILLED = "kill -9 $PPID; {action}exit 1"
"""What takes git's place at the runner's commit: the runner dies, and this git process too."""
SLEEPING_EDITOR = 'sh -c "sleep 60"'


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@contextlib.contextmanager
def running(
    words: list[str], folder: Path, lock: Path | None = None, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a user's git for the block; with `lock`, from when it has taken it."""
    environment = {**os.environ, "GIT_EDITOR": SLEEPING_EDITOR, **variables}
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for _ in range(400):
            if lock is None or lock.exists() or process.poll() is not None:
                break
            time.sleep(0.02)
        assert lock is None or lock.exists(), process.communicate()
        time.sleep(0.1)  # git goes to its work tree
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


def git_path(folder: Path, name: str) -> Path:
    return Path(git(folder, "rev-parse", "--path-format=absolute", "--git-path", name))


#### the runner in each kind of repository


def in_worktree(quick: Quick, tmp_path: Path) -> Path:
    git(quick.root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "elsewhere/tree"))
    return tmp_path / "elsewhere/tree"


def with_separate_git_dir(quick: Quick, tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    git(quick.root, "init", "-q", f"--separate-git-dir={tmp_path / 'elsewhere/dir'}")
    return quick.root


def in_submodule(quick: Quick, tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "super")
    git(tmp_path / "super", "submodule", "--quiet", "add", str(quick.root), "deep/quick")
    return tmp_path / "super/deep/quick"


@pytest.mark.parametrize("layout", [in_worktree, with_separate_git_dir, in_submodule])
def test_a_users_commit_with_its_editor_open_keeps_its_lock_i_60(
    layout: Callable[[Quick, Path], Path], quick: Quick, tmp_path: Path
) -> None:
    # 1. Runner and git are killed in a commit.
    root = layout(quick, tmp_path)
    for name, value in (("name", "Quick Person"), ("email", "quick@example.org")):
        git(root, "config", f"user.{name}", value)
    user = Quick.__new__(Quick)
    user.root = root
    user.temporary.mkdir(exist_ok=True)
    user.run("run", "--next", code=-9, env=git_shim(tmp_path / "bin", KILLED.format(action="")))

    # 2. A commit of the user waits for its editor.
    ignored = (root / ".gitignore").read_text()
    user.write(".gitignore", ignored + "mine\n")
    lock = git_path(root, "index.lock")
    with running(["git", "commit", "-a"], root, lock) as commit:
        result = user.run("run", "--next", code=7)
        assert str(lock) in result.stderr
        assert f"pid {commit.pid} (git commit -a)" in result.stderr
        assert "wait for it to end" in result.stderr
        assert lock.exists()

    # 3. It is given up; the run goes on.
    user.write(".gitignore", ignored)
    user.run("run", "--next")
    assert "VERIFIED" in user.progress


def test_a_dead_gits_lock_is_cleared_while_git_runs_in_another_repository_i_60(
    quick: Quick, tmp_path: Path
) -> None:
    action = ": > .git/index.lock; "
    quick.run(
        "run", "--next", code=-9, env=git_shim(tmp_path / "bin", KILLED.format(action=action))
    )
    nested = quick.root / ".phases/other"
    git(tmp_path, "init", "-q", str(nested))
    git(tmp_path, "init", "-q", "other")
    waiting = ["git", "hash-object", "--stdin"]
    with (
        running(waiting, tmp_path / "other"),
        running(waiting, nested),
        running(["git", "commit", "--allow-empty"], tmp_path / "other"),
    ):
        quick.run("run", "--next")
    assert not (quick.root / ".git/index.lock").exists()


#### which locks a git process may own


class KilledWrite:
    """A repository in which git was killed while it wrote for a runner, with a worktree."""

    def __init__(self, folder: Path):
        self.root = folder / "home/repository"
        self.root.mkdir(parents=True)
        git(self.root, "init", "-q", "-b", "main")
        git(self.root, "commit", "-q", "--allow-empty", "-m", "first")
        self.tree = folder / "elsewhere/tree"
        git(self.root, "worktree", "add", "-q", "-b", "side", str(self.tree))
        self.other = folder / "other"
        git(folder, "init", "-q", str(self.other))

    @contextlib.contextmanager
    def locked(self, *names: str, folder: Path | None = None) -> Iterator[list[Path]]:
        """Take locks of a folder's repository as a git process does that is killed."""
        folder = folder or self.root
        common_dir = probe_repository(folder).common_dir
        git_dir = Path(git(folder, "rev-parse", "--absolute-git-dir"))
        note = common_dir / "phases/git-locks.json"
        note.parent.mkdir(exist_ok=True)
        locks = [git_path(folder, name) for name in names]
        with lock_note(
            common_dir, git_dir, lock_paths(git_dir, common_dir, LOG_REF), lambda: False
        ):
            kept = note.read_bytes()
        note.write_bytes(kept)
        for lock in locks:
            lock.touch()
        try:
            yield locks
        finally:
            for path in (*locks, note):
                path.unlink(missing_ok=True)

    def is_refused(self, *names: str, folder: Path | None = None) -> bool:
        """Return whether these locks stay; if they do, all do."""
        with self.locked(*names, folder=folder) as locks:
            try:
                clear_stale_locks(probe_repository(folder or self.root).common_dir)
            except EnvironmentFaultError as error:
                assert all(lock.exists() for lock in locks)
                assert str(locks[0].parent) in str(error)
                return True
            assert not any(lock.exists() for lock in locks)
            return False

    def is_cleared(self, *names: str, folder: Path | None = None) -> bool:
        """Return whether these locks are removed within seconds.

        A git process of another test whose folder is just being removed may own any lock.
        """
        end = time.monotonic() + 10
        while self.is_refused(*names, folder=folder):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledWrite]:
    with pytest.MonkeyPatch.context() as patch:
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Quick Person")
            patch.setenv(f"GIT_{role}_EMAIL", "quick@example.org")
        yield KilledWrite(tmp_path_factory.mktemp("killed"))


WAITING = ("cat-file", "--batch")
INDEX = "index.lock"


def test_no_git_process_no_owner(killed: KilledWrite) -> None:
    assert killed.is_cleared(INDEX, "HEAD.lock", "next-index-123.lock")


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (("git", *WAITING), "tree"),
        (("git", "-C", "{root}", *WAITING), "other"),
        (("git", "--git-dir={root}/.git", *WAITING), "other"),
        (("git", "--git-dir", "{root}/.git", "--work-tree", ".", *WAITING), "other"),
        (("git", "-c", "a.b=c", "-C", "{root}", "--git-dir=.git", *WAITING), "other"),
        (("git", "-C", "{root}/..", "--git-dir=repository/.git", *WAITING), "other"),
        (("git", *WAITING), "root/.git/refs"),
    ],
)
def test_a_git_process_of_our_repository_owns_what_worktrees_share_i_60(
    killed: KilledWrite, words: tuple[str, ...], start: str
) -> None:
    first, _, rest = start.partition("/")
    folder = getattr(killed, first) / rest
    with running([word.format(root=killed.root) for word in words], folder):
        for lock in ("HEAD.lock", "packed-refs.lock", "refs/heads/main.lock"):
            assert killed.is_refused(lock)
        # A worktree has an index of its own, and the lock of one is no lock of the other.
        own, other = (killed.tree, killed.root) if start == "tree" else (killed.root, killed.tree)
        assert killed.is_refused(INDEX, folder=own)
        assert killed.is_cleared(INDEX, folder=other)


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_DIR": "{root}/.git"},
        {"GIT_DIR": "../home/repository/.git"},
        {"GIT_DIR": "{root}/.git", "GIT_WORK_TREE": "{other}"},
        {"GIT_INDEX_FILE": "{root}/.git/index"},
    ],
    ids=["absolute", "relative", "work tree", "index"],
)
def test_variables_say_where_a_git_process_works_i_60(
    killed: KilledWrite, variables: dict[str, str]
) -> None:
    values = {
        name: value.format(root=killed.root, other=killed.other)
        for name, value in variables.items()
    }
    with running(["git", *WAITING], killed.other, **values):
        assert killed.is_refused(INDEX)


def test_a_git_process_that_left_for_its_work_tree_is_seen_i_60(killed: KilledWrite) -> None:
    """Where it is now, the relative path of its git directory names another repository."""
    below = killed.root / "below"
    below.mkdir()
    git(killed.root.parent, "init", "-q")
    words = ["git", "--git-dir=../.git", "--work-tree=..", "commit", "--allow-empty"]
    try:
        with running(words, below, PWD=str(below)) as process:
            assert Path(f"/proc/{process.pid}/cwd").readlink() == killed.root
            assert killed.is_refused(INDEX)
    finally:
        shutil.rmtree(killed.root.parent / ".git")
        below.rmdir()


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (("git", *WAITING), "other"),
        (("git", "--git-dir={other}/.git", *WAITING), "root"),
        (("git", "-C", "{other}", *WAITING), "root"),
        (("git", "hash-object", "--stdin"), "root/../.."),
    ],
    ids=["elsewhere", "git-dir", "-C", "no repository"],
)
def test_a_git_process_of_another_repository_owns_nothing_here_i_60(
    killed: KilledWrite, words: tuple[str, ...], start: str
) -> None:
    first, _, rest = start.partition("/")
    folder = getattr(killed, first) / rest
    with running([word.format(other=killed.other) for word in words], folder):
        assert killed.is_cleared(INDEX, "HEAD.lock")


def test_a_branch_may_be_called_index(killed: KilledWrite) -> None:
    git(killed.root, "symbolic-ref", "HEAD", "refs/heads/index")
    try:
        with running(["git", *WAITING], killed.tree):
            assert killed.is_refused("refs/heads/index.lock")
    finally:
        git(killed.root, "symbolic-ref", "HEAD", "refs/heads/main")


#### what cannot be determined counts as ours


def test_a_git_process_whose_directory_is_gone_may_own_any_lock_i_60(
    killed: KilledWrite, tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    git(tmp_path, "init", "-q", "gone")
    with running(["git", *WAITING], folder) as process, killed.locked(INDEX) as locks:
        shutil.rmtree(folder)
        git(tmp_path, "init", "-q", "gone")  # another one of the same name
        with pytest.raises(EnvironmentFaultError, match="cannot be determined") as error:
            clear_stale_locks(killed.root / ".git")
        assert f"pid {process.pid} (git cat-file --batch)" in str(error.value)
        assert f"delete {locks[0]}" in error.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of two users")
def test_a_git_process_of_another_user_may_own_any_lock_i_60(killed: KilledWrite) -> None:
    with running(["git", *WAITING], killed.other) as process:
        os.seteuid(65534)
        try:
            processes = {item.pid: item for item in git_processes()}
        finally:
            os.seteuid(0)
        assert processes[process.pid].repositories is None
        assert processes[process.pid].may_own(killed.root / ".git/index.lock", killed.root / ".git")


@pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="this user makes no mount namespace",
)
def test_a_git_process_that_sees_other_files_may_own_any_lock_i_60(
    killed: KilledWrite, tmp_path: Path
) -> None:
    """In its namespace another folder is mounted at its path."""
    script = (
        f"mount --bind {killed.root} {killed.other}; cd {killed.other}; exec git cat-file --batch"
    )
    with running(["unshare", "-m", "sh", "-c", script], tmp_path):
        for _ in range(100):
            if killed.is_refused(INDEX):
                return
            time.sleep(0.02)
        raise AssertionError("the lock was cleared")


def test_a_git_process_that_has_ended_owns_nothing(killed: KilledWrite) -> None:
    zombie = subprocess.Popen(["git", "version"], cwd=killed.root, stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert Path(f"/proc/{zombie.pid}/stat").read_text().split()[2] == "Z"
        assert killed.is_cleared(INDEX)
    finally:
        zombie.wait()
