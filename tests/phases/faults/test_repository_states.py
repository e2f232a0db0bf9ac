"""States of a repository and its machine that a run survives, refuses or leaves alone: F23-F41."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invariants import shape, violations
from quick import GATE, WORKER, Quick, plan
from terminal_user import as_asked, at_terminal

from phases.git import checks
from phases.git.checks import read_repository_state, repository_problems
from phases.git.probe import IDENTITY
from phases.record.ledger import parse_ledger
from tests.soak import mark_soak

Change = Callable[[Quick], object]


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """Return a repository of one phase and two features where nothing was run yet; to copy."""
    return Quick(tmp_path_factory.mktemp("two") / "quick", plan(features=2))


@pytest.fixture(scope="session")
def undisturbed(baseline: Quick, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the end of a run of it without any fault."""
    world = baseline.copy(tmp_path_factory.mktemp("undisturbed") / "quick")
    world.run("run", "--next")
    return shape(world.root)


@pytest.fixture
def quick(baseline: Quick, tmp_path: Path) -> Quick:
    """Return a repository of two features where nothing was run yet."""
    return baseline.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def _mid_phase(baseline: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    world = baseline.copy(tmp_path_factory.mktemp("mid-phase") / "quick")
    world.run("run", "--feature", "Q-001")
    return world


@pytest.fixture
def mid_phase(_mid_phase: Quick, tmp_path: Path) -> Quick:
    """Return a repository of which one of two features was run."""
    return _mid_phase.copy(tmp_path / "quick")


def kinds(world: Quick) -> list[str]:
    return [entry.kind for entry in parse_ledger(world.progress.encode()).entries]


def assert_refused(
    world: Quick,
    code: int,
    *messages: str,
    command: tuple[str, ...] = ("run", "--next"),
    env: dict[str, str] | None = None,
) -> str:
    """Assert that the command exits with the code and leaves neither entry nor commit.

    It names each of the messages, and what to do. Returns its stderr.
    """
    before = trace(world)
    if env is None:
        result = world.call(*command, code=code)
    else:
        result = world.run(*command, code=code, env=env)
    assert "Traceback" not in result.stderr
    assert "\nnext: " in result.stderr
    for message in messages:
        assert message in result.stderr, result.stderr
    assert trace(world) == before
    return str(result.stderr)


def trace(world: Quick) -> tuple[str, bytes, bytes]:
    """Return HEAD, progress.txt and journal; what is absent is empty."""
    # Without GitPython's and the toy's checks: HEAD may be unborn, the repository another user's.
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=world.root, capture_output=True, text=True, check=False
    )
    return (
        head.stdout,
        read_or_nothing(world.root / "progress.txt"),
        read_or_nothing(world.root / ".git/phases/journal"),
    )


def read_or_nothing(path: Path) -> bytes:
    if not path.is_file():
        return b""
    return path.read_bytes()


def findings(world: Quick) -> Any:
    """Return the findings of the audit."""
    return json.loads(world.call("audit", "--json", code=None).stdout)["findings"]


def assert_valid(world: Quick) -> None:
    """Assert that the phase waits, that the audit finds nothing and no invariant is violated."""
    assert world.status()["phases"][0]["state"] == "awaiting_approval"
    assert findings(world) == []
    assert violations(world.root) == []


#### F23, F26 to F28: read-only folders and locks


NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
needs_mounts = pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
    reason="mount namespaces are not allowed here",
)


@needs_mounts
@pytest.mark.parametrize("name", ["", "results", ".git"], ids=["repository", "results", "git"])
def test_a_read_only_folder_is_refused_before_any_work(mid_phase: Quick, name: str) -> None:
    folder = mid_phase.root / name
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    script = f'{mount} && cd "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "phases", "run", "--next"]
    before = trace(mid_phase), shape(mid_phase.root)
    result = subprocess.run(
        [*NAMESPACE, "sh", "-c", script, str(folder), str(mid_phase.root), *command],
        env=mid_phase.environment(),
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert result.returncode == 7, result.stderr
    assert "Read-only file system" in result.stderr
    assert str(folder) in result.stderr
    assert "make the file system writable" in result.stderr
    assert (trace(mid_phase), shape(mid_phase.root)) == before
    mid_phase.run("run", "--next")
    assert_valid(mid_phase)


@pytest.mark.parametrize("pid", [2**22 - 3, os.getpid()], ids=["dead", "reused"])
def test_a_lock_file_left_by_a_dead_runner_is_only_information(mid_phase: Quick, pid: int) -> None:
    holder = {
        "pid": pid,
        "host": "elsewhere",
        "command": "phases run --next",
        "since": "2020-01-01T00:00:00Z",
    }
    (mid_phase.root / ".git/phases/lock.json").write_text(json.dumps(holder))
    assert (mid_phase.root / ".git/phases/lock").exists()
    mid_phase.run("run", "--next")
    assert_valid(mid_phase)


@pytest.mark.parametrize(
    ("name", "owner"),
    mark_soak(
        [("index.lock", "alive"), ("index.lock", "dead"), ("refs/heads/main.lock", "dead")],
        short={("index.lock", "dead")},
    ),
)
def test_a_lock_of_a_users_git_is_named_and_never_deleted(
    mid_phase: Quick, name: str, owner: str
) -> None:
    lock = mid_phase.root / ".git" / name
    lock.write_bytes(b"")
    processes = []
    if owner == "alive":
        processes.append(subprocess.Popen(["sleep", "600"], cwd=mid_phase.root))
    try:
        assert_refused(
            mid_phase,
            7,
            str(lock),
            "a git process is running in this repository, or one was killed",
            f"delete {lock}",
        )
        assert lock.exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    lock.unlink()
    mid_phase.run("run", "--next")
    assert_valid(mid_phase)


def test_a_lock_of_a_users_git_that_ends_is_waited_for(mid_phase: Quick) -> None:
    lock = mid_phase.root / ".git/index.lock"
    holder = subprocess.Popen(["sh", "-c", f"echo > {lock}; sleep 1.5; rm {lock}"])
    while not lock.exists():
        time.sleep(0.01)
    mid_phase.run("run", "--next")
    assert holder.wait() == 0
    assert_valid(mid_phase)


#### F29, F30: time


def test_a_clock_that_went_back_changes_no_order(quick: Quick) -> None:
    """The first feature is run in 2099 by the runner's clock, the second one today."""
    script = "import sys; from phases.base import text; "
    script += "text.utc_now = lambda: '2099-12-31T23:59:59Z'; from phases import cli; cli.main()"
    subprocess.run(
        [sys.executable, "-c", script, "run", "--feature", "Q-001"],
        cwd=quick.root,
        env=quick.environment(),
        check=True,
        capture_output=True,
    )
    quick.run("run", "--next")
    times = [entry.time for entry in parse_ledger(quick.progress.encode()).entries]
    assert times != sorted(times)
    assert quick.states() == {"Q-001": "verified", "Q-002": "verified"}
    assert_valid(quick)


def test_a_runner_stopped_for_longer_than_the_time_out_loses_nothing(
    make_quick: Callable[..., Quick],
) -> None:
    """The worker ends in time while the runner is stopped; seen late, it was still in time."""
    quick = make_quick(plan(timeout_s=2))
    ended = quick.root.parent / "ended"
    quick.write("worker.sh", WORKER.replace("sleep 600", f"sleep 1; touch {ended}"))
    quick.commit("takes a second")
    quick.set_mode("hang")
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=quick.root,
        env=quick.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = quick.root / ".phases/logs/Q-001/1.log"
    while not log.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    child.send_signal(signal.SIGSTOP)
    busy = quick.run("run", "--next", code=6)  # stopped or not, it holds its lock
    assert f"pid {child.pid} on " in busy.stderr
    time.sleep(3)
    child.send_signal(signal.SIGCONT)
    assert child.wait(timeout=60) == 0
    ended.unlink()
    assert_valid(quick)


#### F31 to F34: what the user had begun


def test_a_detached_head_is_refused(mid_phase: Quick) -> None:
    mid_phase.git("checkout", "-q", "--detach")
    assert_refused(mid_phase, 2, "HEAD is detached", "git switch")
    mid_phase.git("checkout", "-q", "main")
    mid_phase.run("run", "--next")
    assert_valid(mid_phase)


def test_what_a_killed_run_left_is_not_committed_to_a_detached_head(quick: Quick) -> None:
    quick.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "started:kill:1"})
    quick.git("checkout", "-q", "--detach")
    assert_refused(quick, 2, "HEAD is detached")
    quick.git("checkout", "-q", "main")
    quick.run("run", "--next")
    assert "INTERRUPTED" in kinds(quick)
    assert_valid(quick)


def test_what_a_user_changed_or_staged_stays_as_it_was(mid_phase: Quick) -> None:
    mid_phase.write("edited.txt", "one\n")
    mid_phase.write("removed.txt", "one\n")
    mid_phase.write("flagged.txt", "one\n")
    mid_phase.commit("files of the user's own")
    mid_phase.write("staged.txt", "staged\n")
    mid_phase.write("script.sh", "exit\n")
    mid_phase.git("add", "staged.txt", "script.sh")
    mid_phase.git("update-index", "--chmod=+x", "script.sh")
    mid_phase.write("staged.txt", "and changed again\n")
    mid_phase.git("rm", "-q", "--cached", "removed.txt")
    mid_phase.git("update-index", "--skip-worktree", "flagged.txt")
    mid_phase.write("flagged.txt", "two\n")
    mid_phase.write("intended.txt", "to be added\n")
    mid_phase.git("add", "-N", "intended.txt")
    mid_phase.write("edited.txt", "two\n")
    mid_phase.write("odd\tname\n.txt", "untracked\n")
    before = user_files(mid_phase)
    mid_phase.run("run", "--next")
    assert user_files(mid_phase) == before
    assert "staged.txt" not in mid_phase.git("log", "--name-only", "--format=")
    assert_valid(mid_phase)


def user_files(world: Quick) -> tuple[list[str], dict[str, str]]:
    """Return the user's part of the index, flags too, and the digests of the user's files."""
    index = []
    for flag in ("--stage", "-v"):
        for line in world.git("ls-files", flag).splitlines():
            if not line.endswith("progress.txt") and "results/" not in line:
                index.append(line)
    digests = {}
    for path in world.root.glob("*"):
        if path.is_file() and path.name != "progress.txt":
            digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return index, digests


def conflict(world: Quick) -> None:
    """Make two branches of the user that change the same line, from where HEAD is."""
    world.git("checkout", "-q", "-b", "theirs")
    world.write("same.txt", "theirs\n")
    world.commit("theirs")
    world.git("checkout", "-q", "main")
    world.write("same.txt", "ours\n")
    world.commit("ours")


def stop_halfway(world: Quick, *arguments: str) -> None:
    """Run a git command that stops in the middle."""
    result = subprocess.run(["git", *arguments], cwd=world.root, capture_output=True, check=False)
    assert result.returncode != 0


def bisect(world: Quick) -> None:
    world.git("bisect", "start")
    world.git("bisect", "bad", "HEAD")


UNFINISHED: dict[str, tuple[Change, str]] = {
    "merge": (lambda world: stop_halfway(world, "merge", "theirs"), "git merge --abort"),
    "rebase": (lambda world: stop_halfway(world, "rebase", "theirs"), "git rebase --abort"),
    "cherry-pick": (
        lambda world: stop_halfway(world, "cherry-pick", "theirs"),
        "git cherry-pick --abort",
    ),
    "revert": (
        lambda world: stop_halfway(world, "revert", "--no-edit", "theirs"),
        "git revert --abort",
    ),
    "bisect": (bisect, "git bisect reset"),
}


@pytest.mark.parametrize("name", mark_soak(UNFINISHED, short={"merge", "rebase", "bisect"}))
def test_an_unfinished_operation_is_named(mid_phase: Quick, name: str) -> None:
    conflict(mid_phase)
    start, abort = UNFINISHED[name]
    start(mid_phase)
    assert_refused(mid_phase, 7, f"a {name} is in progress", abort)
    mid_phase.git(*abort.split()[1:])
    mid_phase.run("run", "--next")
    assert_valid(mid_phase)


@pytest.mark.parametrize(
    "driver",
    [
        pytest.param("", id="markers"),
        pytest.param("progress.txt -merge\n", id="no merge driver", marks=pytest.mark.soak),
    ],
)
def test_two_clones_that_both_went_on_are_not_merged(
    mid_phase: Quick, tmp_path: Path, driver: str
) -> None:
    if driver:
        mid_phase.write(".gitattributes", driver)
        mid_phase.commit("ledgers are never merged line by line")
    mid_phase.git("clone", "-q", str(mid_phase.root), str(tmp_path / "other"))
    other = mid_phase.copy(tmp_path / "theirs")
    other.run("run", "--next")
    mid_phase.run("run", "--next")
    mid_phase.git("fetch", "-q", str(other.root), "main")
    stop_halfway(mid_phase, "merge", "FETCH_HEAD")
    # Without markers progress.txt is as it was, and the phase waits as before.
    code, message = 3, "progress.txt"
    if driver:
        code, message = 4, "awaits your approval"
    assert_refused(mid_phase, code, message)
    mid_phase.git("checkout", "--theirs", "progress.txt")
    mid_phase.git("checkout", "--theirs", "--", ".")
    mid_phase.git("add", "-A")
    mid_phase.git("commit", "-q", "-m", "takes the other's record")
    assert_refused(mid_phase, 3)
    codes = {item["code"] for item in findings(mid_phase)}
    assert codes & {"journal-lacks-commit", "ledger-differs", "ledger-rewritten"}
    mid_phase.git("reset", "-q", "--hard", "HEAD~1")
    assert_valid(mid_phase)


#### F35, F36: other repositories, hooks


def test_submodules_and_nested_repositories_are_left_alone(
    mid_phase: Quick, tmp_path: Path
) -> None:
    library = Quick(tmp_path / "library")
    allow = ("-c", "protocol.file.allow=always")
    mid_phase.git(*allow, "submodule", "add", "-q", str(library.root), "vendor/library")
    mid_phase.commit("a library")
    library_file = mid_phase.root / "vendor/library/prd/plan.json"
    library_file.write_text("changed inside")
    nested = mid_phase.copy(mid_phase.root / "nested")
    subprocess.run(["git", "init", "-q", "--bare", str(mid_phase.root / "bare.git")], check=True)
    before = nested.git("rev-parse", "HEAD"), library_file.read_bytes()
    mid_phase.run("run", "--next")
    assert (nested.git("rev-parse", "HEAD"), library_file.read_bytes()) == before
    assert "nested" not in mid_phase.git("ls-files")
    assert_valid(mid_phase)


def test_a_submodule_can_itself_be_run(mid_phase: Quick, tmp_path: Path) -> None:
    outer = Quick(tmp_path / "outer")
    allow = ("-c", "protocol.file.allow=always")
    outer.git(*allow, "submodule", "add", "-q", str(mid_phase.root), "inner")
    outer.commit("a project inside")
    inner = Quick.__new__(Quick)
    inner.root = outer.root / "inner"
    inner.temporary.mkdir()
    inner.git("config", "user.name", "Inner Person")
    inner.git("config", "user.email", "inner@example.org")
    inner.git("checkout", "-q", "-B", "main")
    inner.run("run", "--next")
    assert_valid(inner)


@pytest.mark.parametrize("kind", ["repository", "link"])
def test_results_inside_another_repository_are_refused(quick: Quick, kind: str) -> None:
    if kind == "repository":
        subprocess.run(["git", "init", "-q", str(quick.root / "results")], check=True)
        assert_refused(quick, 7, "results is a repository of its own")
    else:
        (quick.root / "elsewhere").mkdir()
        (quick.root / "results").symlink_to("elsewhere")
        assert_refused(quick, 7, "results is a symbolic link")
    # No attempt has a log: nothing was started. The runner's own debug log is a file.
    assert [path for path in (quick.root / ".phases/logs").glob("*") if path.is_dir()] == []


HOOKS = (
    "pre-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "reference-transaction",
    "post-index-change",
)
HOOK_CASES = [("hooks", "fails"), ("hooks", "hangs"), ("hooks", "floods"), ("configured", "fails")]
SHORT_HOOK_CASES = {("hooks", "hangs"), ("configured", "fails")}
BODIES = {"fails": "exit 1", "hangs": "sleep 600", "floods": "yes | head -c 20000000; exit 1"}


@pytest.mark.parametrize(("location", "body"), mark_soak(HOOK_CASES, short=SHORT_HOOK_CASES))
def test_hooks_of_the_user_do_not_run(mid_phase: Quick, body: str, location: str) -> None:
    folder = mid_phase.root / ".git/hooks"
    if location == "configured":
        folder = mid_phase.root.with_name("my-hooks")
        mid_phase.git("config", "core.hooksPath", str(folder))
    folder.mkdir(exist_ok=True)
    marker = mid_phase.root.with_name("hook-ran")
    for name in HOOKS:
        (folder / name).write_text(f"#!/bin/sh\ntouch {marker}\n{BODIES[body]}\n")
        (folder / name).chmod(0o755)
    mid_phase.run("run", "--next")
    assert not marker.exists()
    assert_valid(mid_phase)


#### F37 to F39: signing, identity, git itself


SIGNERS = {
    "broken": ("#!/bin/sh\necho 'gpg: no secret key' >&2\nexit 2\n", "gpg failed to sign the data"),
    "hangs": ("#!/bin/sh\nsleep 600\n", "did not end within"),
    "absent": (None, "cannot run"),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_a_signature_that_cannot_be_made_is_found_before_the_work(
    mid_phase: Quick, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = SIGNERS[name]
    program = tmp_path / "signer"
    if text:
        program.write_text(text)
        program.chmod(0o755)
    mid_phase.git("config", "commit.gpgsign", "true")
    mid_phase.git("config", "gpg.program", str(program))
    if name == "hangs":
        monkeypatch.setattr(checks, "SIGN_S", 1.0)
        problems = repository_problems(read_repository_state(mid_phase.root))
        assert [message in str(problem) for problem in problems] == [True]
        assert problems[0].exit_code == 7
        return
    assert_refused(mid_phase, 7, "commits are to be signed (commit.gpgsign)", message)
    mid_phase.git("config", "commit.gpgsign", "false")
    mid_phase.run("run", "--next")
    assert_valid(mid_phase)


def test_a_signature_that_can_be_made_is_made(mid_phase: Quick, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    mid_phase.git("config", "commit.gpgsign", "true")
    mid_phase.git("config", "gpg.format", "ssh")
    mid_phase.git("config", "user.signingkey", str(key))
    mid_phase.run("run", "--next")
    assert "gpgsig" in mid_phase.git("cat-file", "commit", "HEAD")
    assert_valid(mid_phase)


@pytest.mark.parametrize("missing", mark_soak(["both", "author"], short={"author"}))
def test_no_identity_is_found_before_the_work(mid_phase: Quick, missing: str) -> None:
    mid_phase.git("config", "--unset", "user.name")
    mid_phase.git("config", "--unset", "user.email")
    mid_phase.git("config", "user.useConfigOnly", "true")
    env = {"HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    if missing == "author":
        env |= {"GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org"}
    assert_refused(
        mid_phase, 7, "git has no identity to commit with", "git config user.name", env=env
    )
    env |= dict.fromkeys(IDENTITY, "x@example.org")
    mid_phase.run("run", "--next", env=env)
    assert_valid(mid_phase)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give files away")
def test_a_repository_of_another_user_is_refused(mid_phase: Quick) -> None:
    subprocess.run(["chown", "-R", "12345", str(mid_phase.root)], check=True)
    result = mid_phase.run("run", "--next", code=7, env={"HOME": "/nonexistent"})
    assert "dubious ownership" in result.stderr
    command = f"git config --global --add safe.directory {mid_phase.root}"
    assert f"next: if you trust it: {command}" in result.stderr


@pytest.mark.parametrize(
    "change",
    [
        "echo x > HEAD && git add HEAD && git commit -qm HEAD",
        "git config diff.orderFile /nonexistent",
    ],
    ids=["a file called HEAD", "diff.orderFile"],
)
def test_names_and_settings_that_git_could_take_for_others(quick: Quick, change: str) -> None:
    subprocess.run(["sh", "-c", change], cwd=quick.root, check=True)
    quick.run("run", "--next")
    quick.assert_audit_is_clean()
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    quick.assert_audit_is_clean()


def test_git_missing_or_too_old_is_reported(mid_phase: Quick, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    result = mid_phase.run("run", "--next", code=7, env={"PATH": str(tools)})
    assert "the program git was not found on PATH" in result.stderr
    version = '*" version") echo "git version 2.17.1";;'
    shim = f'#!/bin/sh\ncase "$*" in {version} *) exec {shutil.which("git")} "$@";; esac\n'
    (tools / "git").write_text(shim)
    (tools / "git").chmod(0o755)
    assert_refused(
        mid_phase,
        7,
        "git: got version 2.17.1; expected 2.34 or newer",
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
    )


#### F40, F41: kinds of repositories, line ends


def clone(world: Quick, target: Path, *options: str) -> Quick:
    subprocess.run(
        ["git", "clone", "-q", *options, f"file://{world.root}", str(target)], check=True
    )
    other = Quick.__new__(Quick)
    other.root = target
    other.temporary.mkdir()
    other.git("config", "user.name", "Quick Person")
    other.git("config", "user.email", "quick@example.org")
    return other


def test_a_shallow_clone_is_refused(mid_phase: Quick, tmp_path: Path) -> None:
    shallow = clone(mid_phase, tmp_path / "shallow", "--depth", "1")
    assert_refused(shallow, 7, "this clone is shallow", "git fetch --unshallow")
    assert_refused(shallow, 7, "this clone is shallow", command=("audit",))
    shallow.git("fetch", "-q", "--unshallow")
    shallow.run("run", "--next")
    assert_valid(shallow)


def test_a_partial_clone_is_refused(mid_phase: Quick, tmp_path: Path) -> None:
    mid_phase.git("config", "uploadpack.allowFilter", "true")
    partial = clone(mid_phase, tmp_path / "partial", "--filter=blob:none")
    assert_refused(partial, 7, "this is a partial clone", "clone again without --filter")
    assert_refused(partial, 7, "this is a partial clone", command=("audit",))


def packed(world: Quick, folder: Path) -> Quick:
    del folder
    world.git("pack-refs", "--all", "--prune")
    world.git("gc", "-q")
    return world


def sha256(world: Quick, folder: Path) -> Quick:
    del world
    other = Quick(folder / "sha256", plan(features=2))
    subprocess.run(["rm", "-r", str(other.root / ".git")], check=True)
    other.git("init", "-q", "-b", "main", "--object-format=sha256")
    other.git("config", "user.name", "Quick Person")
    other.git("config", "user.email", "quick@example.org")
    other.commit("with longer names")
    other.run("run", "--feature", "Q-001")
    assert len(other.git("rev-parse", "HEAD")) == 64
    return other


def worktree(world: Quick, folder: Path) -> Quick:
    world.git("worktree", "add", "-q", "-b", "side", str(folder / "side"))
    other = Quick.__new__(Quick)
    other.root = folder / "side"
    other.temporary.mkdir()
    (other.root / ".phases").symlink_to(world.root / ".phases")
    return other


def sparse(world: Quick, folder: Path) -> Quick:
    del folder
    world.write("elsewhere/large.txt", "not in this checkout\n")
    world.commit("a folder that this checkout leaves out")
    world.git("sparse-checkout", "set", "--no-cone", "/*", "!/elsewhere/")
    assert not (world.root / "elsewhere").exists()
    return world


def replace_ref(world: Quick, folder: Path) -> Quick:
    """Add a replace ref that shows a forged file for the committed one; no commit changes."""
    del folder
    blob = world.git("rev-parse", "HEAD:results/Q-001/receipt.json")
    forged = world.root.with_name("forged")
    forged.write_text("{}")
    world.git("replace", blob, world.git("hash-object", "-w", str(forged)))
    return world


def unusual_settings(world: Quick, folder: Path) -> Quick:
    """Set what changes how git prints and how it stores messages."""
    del folder
    settings = {
        "log.showSignature": "true",
        "log.follow": "true",
        "trailer.separators": "=",
        "color.ui": "always",
        "i18n.commitEncoding": "latin1",
        "i18n.logOutputEncoding": "latin1",
        "core.quotePath": "true",
        "core.commentChar": "P",
        "commit.cleanup": "strip",
        "diff.noprefix": "true",
        "core.abbrev": "40",
        "status.branch": "true",
        "core.splitIndex": "true",
        "core.ignoreCase": "true",
        "commit.verbose": "true",
    }
    for name, value in settings.items():
        world.git("config", name, value)
    return world


KINDS = (packed, sha256, worktree, sparse, replace_ref, unusual_settings)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_kinds_of_repositories_that_work(
    mid_phase: Quick, tmp_path: Path, kind: Callable[[Quick, Path], Quick]
) -> None:
    world = kind(mid_phase, tmp_path / "elsewhere")
    world.run("run", "--next")
    assert world.status()["phases"][0]["state"] == "awaiting_approval"
    assert findings(world) == []
    assert "\nPhases-Entry: 0007\n" in world.git("cat-file", "commit", "HEAD")


CRLF = WORKER + "printf 'a,b\\r\\n1,2\\r\\n' > \"$PHASES_OUT/table.csv\"\n"


def crlf_world(make_quick: Callable[..., Quick], attributes: str = "", **config: str) -> Quick:
    """Return a repository whose worker writes a file with CRLF."""
    document = plan()
    feature = document["phases"][0]["features"][0]
    feature["outputs"].append("table.csv")
    feature["gate"] = {"shell": f"{GATE} && test \"$(tr '\\r\\n' .. < table.csv)\" = a,b..1,2.."}
    quick = make_quick(document)
    quick.write("worker.sh", CRLF)
    if attributes:
        quick.write(".gitattributes", attributes)
    quick.commit("a table")
    for name, value in config.items():
        quick.git("config", f"core.{name}", value)
    return quick


@pytest.mark.parametrize(
    "config",
    [{"autocrlf": "true"}, {"autocrlf": "input", "safecrlf": "true"}, {"eol": "crlf"}],
    ids=str,
)
def test_line_ends_and_filters_cannot_change_what_was_hashed(
    make_quick: Callable[..., Quick], config: dict[str, str]
) -> None:
    quick = crlf_world(make_quick, **config)
    quick.run("run", "--next")
    blob = subprocess.run(
        ["git", "cat-file", "blob", "HEAD:results/Q-001/table.csv"],
        cwd=quick.root,
        capture_output=True,
        check=True,
    )
    assert b"\r\n" in blob.stdout
    assert_valid(quick)


def test_a_result_that_text_attributes_would_change_waits_until_they_are_fixed(
    make_quick: Callable[..., Quick],
) -> None:
    quick = crlf_world(make_quick, "* text=auto\n")
    head = quick.git("rev-parse", "HEAD")
    result = quick.run("run", "--next", code=7)
    assert "git would store results/Q-001/table.csv with other bytes than it has" in result.stderr
    assert "results/** -text" in result.stderr
    assert quick.git("rev-parse", "HEAD") == head
    quick.write(".gitattributes", "* text=auto\nresults/** -text -filter\n")
    quick.git("add", ".gitattributes")
    quick.git("commit", "-q", "-m", "results are bytes", ".gitattributes")
    quick.run("run", "--next")
    assert kinds(quick).count("STARTED") == 1  # the work was not repeated
    assert_valid(quick)


@pytest.mark.parametrize(
    "line",
    [
        "*.json filter=swap\n",
        "* text eol=crlf\n",
        "* ident\n",
        "*.txt working-tree-encoding=UTF-16\n",
    ],
)
def test_filters_are_refused_before_the_work(quick: Quick, line: str) -> None:
    quick.write(".gitattributes", line)
    quick.git("config", "filter.swap.clean", "sed s/14/15/")
    quick.git("add", ".gitattributes")
    quick.git("commit", "-q", "-m", "attributes", ".gitattributes")
    assert_refused(quick, 7, ".gitattributes gives", "add `")


def test_a_ledger_checked_out_with_other_line_ends_is_named(
    mid_phase: Quick, tmp_path: Path
) -> None:
    other = clone(mid_phase, tmp_path / "windows", "-c", "core.autocrlf=true")
    assert_refused(other, 3, "line ends")


#### several first commits


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_history_that_was_merged_with_an_unrelated_one(mid_phase: Quick, first: str) -> None:
    """The record's first commit stays in the history, also where it is no longer the first."""
    mid_phase.git("switch", "-q", "--orphan", "unrelated")
    mid_phase.write("unrelated.md", "of another project\n")
    mid_phase.git("add", "unrelated.md")
    mid_phase.git("commit", "-q", "-m", "unrelated")
    other = "main"
    if first == "ours":
        mid_phase.git("switch", "-q", "main")
        other = "unrelated"
    mid_phase.git("merge", "-q", "--no-edit", "--allow-unrelated-histories", other)
    mid_phase.assert_audit_is_clean()
    mid_phase.run("run", "--next")
    code, screen = at_terminal(mid_phase.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    mid_phase.assert_audit_is_clean()
    mid_phase.call("run", "--next")
    assert violations(mid_phase.root) == []
