"""States of a repository and of its machine that a run must survive, refuse or leave alone (rows F23 to F41)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invariants import shape, violations
from quick import WORKER, Quick, plan

from phases import cli
from phases.git import checks
from phases.git.checks import read_repository_state, repository_problems
from phases.record.ledger import parse_ledger

Change = Callable[[Quick], object]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """A quick repository of one phase and two features where nothing was run yet; copy it."""
    return Quick(tmp_path_factory.mktemp("two") / "quick", plan(features=2))


@pytest.fixture(scope="session")
def undisturbed(pristine: Quick, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The end of a run of it that nobody disturbs."""
    world = pristine.copy(tmp_path_factory.mktemp("undisturbed") / "quick")
    world.run("run", "--next")
    return shape(world.root)


@pytest.fixture
def quick(pristine: Quick, tmp_path: Path) -> Quick:
    """A repository of two features where nothing was run yet."""
    return pristine.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def _begun(pristine: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    world = pristine.copy(tmp_path_factory.mktemp("begun") / "quick")
    world.run("run", "--feature", "Q-001")
    return world


@pytest.fixture
def begun(_begun: Quick, tmp_path: Path) -> Quick:
    """A repository of which one of two features was run."""
    return _begun.copy(tmp_path / "quick")


def kinds(world: Quick) -> list[str]:
    return [entry.kind for entry in parse_ledger(world.progress.encode()).entries]


def refused(
    world: Quick, code: int, *said: str, words: tuple[str, ...] = ("run", "--next"), **more: Any
) -> str:
    """The command ends with the code, names what was met and what to do, and leaves neither entry nor commit."""
    before = trace(world)
    done = world.run(*words, code=code, **more)
    assert "Traceback" not in done.stderr
    assert "\nnext: " in done.stderr
    for word in said:
        assert word in done.stderr, done.stderr
    assert trace(world) == before
    return str(done.stderr)


def trace(world: Quick) -> tuple[str, bytes, bytes]:
    """HEAD, progress.txt and journal."""
    files = (world.root / "progress.txt", world.root / ".git/phases/journal")
    texts = [path.read_bytes() if path.is_file() else b"" for path in files]
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=world.root, capture_output=True, text=True, check=False
    ).stdout, texts[0], texts[1]  # fmt: skip


def holds(world: Quick) -> None:
    """The phase waits, the audit finds nothing, every invariant holds."""
    assert here(world, "status")["phases"][0]["state"] == "awaiting_approval"
    assert here(world, "audit")["findings"] == []
    assert violations(world.root) == []


def here(world: Quick, command: str) -> Any:
    """`COMMAND --json` in this process: what the child processes do, without their start-up."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", ["phases", "--root", str(world.root), command, "--json"])
        with pytest.raises(SystemExit):
            cli.main()
    return json.loads(out.getvalue())


#### F23, F26 to F28: places and locks


NAMESPACE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
needs_mounts = pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
    reason="mount namespaces are not allowed here",
)


@needs_mounts
@pytest.mark.parametrize("place", ["", "results", ".git"], ids=["repository", "results", "git"])
def test_a_read_only_place_is_refused_before_any_work(begun: Quick, place: str) -> None:
    target = begun.root / place
    script = (
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$1" && shift && exec "$@"'
    )
    words = [sys.executable, "-m", "phases", "run", "--next"]
    before = trace(begun), shape(begun.root)
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "TMPDIR": str(begun.temporary),
    }
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", script, str(target), str(begun.root), *words], env=env, capture_output=True, text=True,
        start_new_session=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "Read-only file system" in done.stderr
    assert str(target) in done.stderr
    assert "make the file system writable" in done.stderr
    assert (trace(begun), shape(begun.root)) == before
    begun.run("run", "--next")
    holds(begun)


@pytest.mark.parametrize("pid", [2**22 - 3, os.getpid()], ids=["dead", "reused"])
def test_a_lock_file_left_by_a_dead_runner_is_only_information(begun: Quick, pid: int) -> None:
    left = {
        "pid": pid,
        "host": "elsewhere",
        "command": "phases run --next",
        "since": "2020-01-01T00:00:00Z",
    }
    (begun.root / ".git/phases/lock.json").write_text(json.dumps(left))
    assert (begun.root / ".git/phases/lock").exists()
    begun.run("run", "--next")
    holds(begun)


@pytest.mark.parametrize(
    ("name", "owner"),
    [("index.lock", "alive"), ("index.lock", "dead"), ("refs/heads/main.lock", "dead")],
)
def test_a_lock_of_a_users_git_is_named_and_never_deleted(
    begun: Quick, name: str, owner: str
) -> None:
    lock = begun.root / ".git" / name
    lock.write_bytes(b"")
    holder = subprocess.Popen(["sleep", "600"], cwd=begun.root) if owner == "alive" else None
    try:
        refused(
            begun,
            7,
            str(lock),
            "a git is at work in this repository, or one was killed",
            f"delete {lock}",
        )
        assert lock.exists()
    finally:
        if holder:
            holder.kill()
            holder.wait()
    lock.unlink()
    begun.run("run", "--next")
    holds(begun)


def test_a_lock_of_a_users_git_that_ends_is_waited_for(begun: Quick) -> None:
    lock = begun.root / ".git/index.lock"
    holder = subprocess.Popen(["sh", "-c", f"echo > {lock}; sleep 1.5; rm {lock}"])
    while not lock.exists():
        time.sleep(0.01)
    begun.run("run", "--next")
    assert holder.wait() == 0
    holds(begun)


#### F29, F30: time


def test_a_clock_that_went_back_changes_no_order(quick: Quick) -> None:
    """The first feature is run by a runner whose clock stands in 2099, the rest by one whose clock is right."""
    ahead = "import sys; from phases.base import text; "
    ahead += "text.utc_now = lambda: '2099-12-31T23:59:59Z'; from phases import cli; cli.main()"
    subprocess.run(
        [sys.executable, "-c", ahead, "run", "--feature", "Q-001"], cwd=quick.root, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    quick.run("run", "--next")
    times = [entry.time for entry in parse_ledger(quick.progress.encode()).entries]
    assert times != sorted(times)
    assert quick.states() == {"Q-001": "verified", "Q-002": "verified"}
    holds(quick)


def test_a_runner_stopped_for_longer_than_the_time_out_loses_nothing(
    make_quick: Callable[..., Quick],
) -> None:
    """The worker ends in time while the runner is stopped; seen late, it was still in time."""
    quick = make_quick(plan(timeout_s=2))
    quick.write("worker.sh", WORKER.replace("sleep 600", "sleep 1; touch ../ended"))
    quick.write("MODE", "hang")
    quick.commit("takes a second")
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"], cwd=quick.root, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
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
    (quick.root.parent / "ended").unlink()
    holds(quick)


#### F31 to F34: what a user was in the midst of


def test_a_detached_head_is_refused(begun: Quick) -> None:
    begun.git("checkout", "-q", "--detach")
    refused(begun, 2, "HEAD is detached", "git switch")
    begun.git("checkout", "-q", "main")
    begun.run("run", "--next")
    holds(begun)


def test_what_a_killed_run_left_is_not_committed_to_a_detached_head(quick: Quick) -> None:
    quick.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "started:kill:1"})
    quick.git("checkout", "-q", "--detach")
    refused(quick, 2, "HEAD is detached")
    quick.git("checkout", "-q", "main")
    quick.run("run", "--next")
    assert "INTERRUPTED" in kinds(quick)
    holds(quick)


def test_what_a_user_changed_or_staged_stays_as_it_was(begun: Quick) -> None:
    begun.write("kept.txt", "one\n")
    begun.write("gone.txt", "one\n")
    begun.write("flagged.txt", "one\n")
    begun.commit("files of the user's own")
    begun.write("staged.txt", "staged\n")
    begun.write("script.sh", "exit\n")
    begun.git("add", "staged.txt", "script.sh")
    begun.git("update-index", "--chmod=+x", "script.sh")
    begun.write("staged.txt", "and changed again\n")
    begun.git("rm", "-q", "--cached", "gone.txt")
    begun.git("update-index", "--skip-worktree", "flagged.txt")
    begun.write("flagged.txt", "two\n")
    begun.write("meant.txt", "to be added\n")
    begun.git("add", "-N", "meant.txt")
    begun.write("kept.txt", "two\n")
    begun.write("odd\tname\n.txt", "untracked\n")
    before = mine(begun)
    begun.run("run", "--next")
    assert mine(begun) == before
    holds(begun)


def mine(world: Quick) -> tuple[list[str], dict[str, str]]:
    """The user's part of the index, flags too, and the bytes of the user's files."""
    index = [
        line for flag in ("--stage", "-v") for line in world.git("ls-files", flag).splitlines()
        if not line.endswith("progress.txt") and "results/" not in line
    ]  # fmt: skip
    names = [
        path for path in world.root.glob("*") if path.is_file() and path.name != "progress.txt"
    ]
    return index, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


def conflict(world: Quick) -> None:
    """Two branches that changed the same line, from where HEAD is; both belong to the user."""
    world.git("checkout", "-q", "-b", "theirs")
    world.write("same.txt", "theirs\n")
    world.commit("theirs")
    world.git("checkout", "-q", "main")
    world.write("same.txt", "ours\n")
    world.commit("ours")


def tried(world: Quick, *words: str) -> None:
    """A git command that stops in the middle."""
    assert (
        subprocess.run(["git", *words], cwd=world.root, capture_output=True, check=False).returncode
        != 0
    )


def bisect(world: Quick) -> None:
    world.git("bisect", "start")
    world.git("bisect", "bad", "HEAD")


UNFINISHED: dict[str, tuple[Change, str]] = {
    "merge": (lambda world: tried(world, "merge", "theirs"), "git merge --abort"),
    "rebase": (lambda world: tried(world, "rebase", "theirs"), "git rebase --abort"),
    "cherry-pick": (lambda world: tried(world, "cherry-pick", "theirs"), "git cherry-pick --abort"),
    "revert": (lambda world: tried(world, "revert", "--no-edit", "theirs"), "git revert --abort"),
    "bisect": (bisect, "git bisect reset"),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_operation_is_named(begun: Quick, name: str) -> None:
    conflict(begun)
    start, way_out = UNFINISHED[name]
    start(begun)
    refused(begun, 7, f"a {name} is in progress", way_out)
    begun.git(*way_out.split()[1:])
    begun.run("run", "--next")
    holds(begun)


@pytest.mark.parametrize(
    "driver", ["", "progress.txt -merge\n"], ids=["markers", "no merge driver"]
)
def test_two_clones_that_both_went_on_are_not_merged(
    begun: Quick, tmp_path: Path, driver: str
) -> None:
    if driver:
        begun.write(".gitattributes", driver)
        begun.commit("ledgers are never merged line by line")
    begun.git("clone", "-q", str(begun.root), str(tmp_path / "other"))
    other = begun.copy(tmp_path / "theirs")
    other.run("run", "--next")
    begun.run("run", "--next")
    begun.git("fetch", "-q", str(other.root), "main")
    tried(begun, "merge", "FETCH_HEAD")
    said = refused(begun, 4 if driver else 3)
    assert ("awaits your approval" if driver else "progress.txt") in said
    begun.git("checkout", "--theirs", "progress.txt")
    begun.git("checkout", "--theirs", "--", ".")
    begun.git("add", "-A")
    begun.git("commit", "-q", "-m", "takes the other's record")
    refused(begun, 3)
    codes = {item["code"] for item in here(begun, "audit")["findings"]}
    assert codes & {"journal-lacks-commit", "ledger-differs", "ledger-rewritten"}
    begun.git("reset", "-q", "--hard", "HEAD~1")
    holds(begun)


#### F35, F36: other repositories, hooks


def test_submodules_and_nested_repositories_are_left_alone(begun: Quick, tmp_path: Path) -> None:
    library = Quick(tmp_path / "library")
    begun.git(
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "add",
        "-q",
        str(library.root),
        "vendor/library",
    )
    begun.commit("a library")
    (begun.root / "vendor/library/prd/plan.json").write_text("changed inside")
    nested = begun.copy(begun.root / "nested")
    subprocess.run(["git", "init", "-q", "--bare", str(begun.root / "bare.git")], check=True)
    before = (
        nested.git("rev-parse", "HEAD"),
        (begun.root / "vendor/library/prd/plan.json").read_bytes(),
    )
    begun.run("run", "--next")
    assert (
        nested.git("rev-parse", "HEAD"),
        (begun.root / "vendor/library/prd/plan.json").read_bytes(),
    ) == before
    assert "nested" not in begun.git("ls-files")
    holds(begun)


def test_a_submodule_can_itself_be_run(begun: Quick, tmp_path: Path) -> None:
    outer = Quick(tmp_path / "outer")
    outer.git(
        "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(begun.root), "inner"
    )
    outer.commit("a project inside")
    inner = Quick.__new__(Quick)
    inner.root = outer.root / "inner"
    inner.temporary.mkdir()
    inner.git("config", "user.name", "Inner Person")
    inner.git("config", "user.email", "inner@example.org")
    inner.git("checkout", "-q", "-B", "main")
    inner.run("run", "--next")
    holds(inner)


@pytest.mark.parametrize("kind", ["repository", "link"])
def test_results_inside_another_repository_are_refused(quick: Quick, kind: str) -> None:
    if kind == "repository":
        subprocess.run(["git", "init", "-q", str(quick.root / "results")], check=True)
        refused(quick, 7, "results is a repository of its own")
    else:
        (quick.root / "elsewhere").mkdir()
        (quick.root / "results").symlink_to("elsewhere")
        refused(quick, 7, "results is a symbolic link")
    assert not (quick.root / ".phases/logs").exists()  # nothing was started


HOOKS = (
    "pre-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "reference-transaction",
    "post-index-change",
)
CASES = [("hooks", "fails"), ("hooks", "hangs"), ("hooks", "floods"), ("configured", "fails")]
BODIES = {"fails": "exit 1", "hangs": "sleep 600", "floods": "yes | head -c 20000000; exit 1"}


@pytest.mark.parametrize(("where", "body"), CASES)
def test_hooks_of_the_user_do_not_run(begun: Quick, body: str, where: str) -> None:
    folder = begun.root / ".git/hooks"
    if where == "configured":
        folder = begun.root.with_name("my-hooks")
        begun.git("config", "core.hooksPath", str(folder))
    folder.mkdir(exist_ok=True)
    for name in HOOKS:
        (folder / name).write_text(
            f"#!/bin/sh\ntouch {begun.root.with_name('hook-ran')}\n{BODIES[body]}\n"
        )
        (folder / name).chmod(0o755)
    begun.run("run", "--next")
    assert not begun.root.with_name("hook-ran").exists()
    holds(begun)


#### F37 to F39: signing, identity, git itself


SIGNERS = {
    "broken": ("#!/bin/sh\necho 'gpg: no secret key' >&2\nexit 2\n", "gpg failed to sign the data"),
    "hangs": ("#!/bin/sh\nsleep 600\n", "did not end within"),
    "absent": (None, "cannot run"),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_a_signature_that_cannot_be_made_is_found_before_the_work(
    begun: Quick, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, said = SIGNERS[name]
    program = tmp_path / "signer"
    if text:
        program.write_text(text)
        program.chmod(0o755)
    begun.git("config", "commit.gpgsign", "true")
    begun.git("config", "gpg.program", str(program))
    if name == "hangs":
        monkeypatch.setattr(checks, "SIGN_S", 1.0)
        problems = repository_problems(read_repository_state(begun.root))
        assert [said in str(item) for item in problems] == [True]
        assert problems[0].exit_code == 7
        return
    refused(begun, 7, "commits are to be signed (commit.gpgsign)", said)
    begun.git("config", "commit.gpgsign", "false")
    begun.run("run", "--next")
    holds(begun)


def test_a_signature_that_can_be_made_is_made(begun: Quick, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    for name, value in {
        "commit.gpgsign": "true",
        "gpg.format": "ssh",
        "user.signingkey": str(key),
    }.items():
        begun.git("config", name, value)
    begun.run("run", "--next")
    assert "gpgsig" in begun.git("cat-file", "commit", "HEAD")
    holds(begun)


@pytest.mark.parametrize("who", ["nobody", "no author"])
def test_no_identity_is_found_before_the_work(begun: Quick, who: str) -> None:
    begun.git("config", "--unset", "user.name")
    begun.git("config", "--unset", "user.email")
    begun.git("config", "user.useConfigOnly", "true")
    env = {"HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    if who == "no author":
        env |= {"GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org"}
    refused(begun, 7, "git has no identity to commit with", "git config user.name", env=env)
    env |= {
        f"GIT_{role}_{what}": "x@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    begun.run("run", "--next", env=env)
    holds(begun)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give files away")
def test_a_repository_of_another_user_is_refused(begun: Quick) -> None:
    subprocess.run(["chown", "-R", "12345", str(begun.root)], check=True)
    done = begun.run("run", "--next", code=7, env={"HOME": "/nonexistent"})
    assert "dubious ownership" in done.stderr
    assert (
        f"next: if you trust it: git config --global --add safe.directory {begun.root}"
        in done.stderr
    )


def test_git_missing_or_too_old_is_said(begun: Quick, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    done = begun.run("run", "--next", code=7, env={"PATH": str(tools)})
    assert "the program git was not found on PATH" in done.stderr
    real = subprocess.run(
        ["which", "git"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tools / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *" version") echo "git version 2.17.1";; *) exec {real} "$@";; esac\n'
    )
    (tools / "git").chmod(0o755)
    refused(
        begun,
        7,
        "git is version 2.17.1, wanted 2.34 or newer",
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
    for name, value in {"user.name": "Quick Person", "user.email": "quick@example.org"}.items():
        other.git("config", name, value)
    return other


def test_a_shallow_clone_is_refused(begun: Quick, tmp_path: Path) -> None:
    shallow = clone(begun, tmp_path / "shallow", "--depth", "1")
    refused(shallow, 7, "this clone is shallow", "git fetch --unshallow")
    refused(shallow, 7, "this clone is shallow", words=("audit",))
    shallow.git("fetch", "-q", "--unshallow")
    shallow.run("run", "--next")
    holds(shallow)


def test_a_partial_clone_is_refused(begun: Quick, tmp_path: Path) -> None:
    begun.git("config", "uploadpack.allowFilter", "true")
    partial = clone(begun, tmp_path / "partial", "--filter=blob:none")
    refused(partial, 7, "this is a partial clone", "clone again without --filter")
    refused(partial, 7, "this is a partial clone", words=("audit",))


def packed(world: Quick, place: Path) -> Quick:
    del place
    world.git("pack-refs", "--all", "--prune")
    world.git("gc", "-q")
    return world


def sha256(world: Quick, place: Path) -> Quick:
    del world
    other = Quick(place / "sha256", plan(features=2))
    subprocess.run(["rm", "-r", str(other.root / ".git")], check=True)
    other.git("init", "-q", "-b", "main", "--object-format=sha256")
    other.git("config", "user.name", "Quick Person")
    other.git("config", "user.email", "quick@example.org")
    other.commit("with longer names")
    other.run("run", "--feature", "Q-001")
    assert len(other.git("rev-parse", "HEAD")) == 64
    return other


def worktree(world: Quick, place: Path) -> Quick:
    world.git("worktree", "add", "-q", "-b", "side", str(place / "side"))
    other = Quick.__new__(Quick)
    other.root = place / "side"
    other.temporary.mkdir()
    artifacts = other.root / ".phases"
    artifacts.symlink_to(world.root / ".phases")
    return other


def sparse(world: Quick, place: Path) -> Quick:
    del place
    world.write("elsewhere/large.txt", "not wanted here\n")
    world.commit("a folder that this checkout leaves out")
    world.git("sparse-checkout", "set", "--no-cone", "/*", "!/elsewhere/")
    assert not (world.root / "elsewhere").exists()
    return world


def replaced(world: Quick, place: Path) -> Quick:
    """A replace ref that shows a forged file in place of the committed one: the commits themselves are as they were."""
    del place
    blob = world.git("rev-parse", "HEAD:results/Q-001/receipt.json")
    forged = world.root.with_name("forged")
    forged.write_text("{}")
    world.git("replace", blob, world.git("hash-object", "-w", str(forged)))
    return world


def bothered(world: Quick, place: Path) -> Quick:
    """A user's configuration that changes what git prints and how it stores messages."""
    del place
    for name, value in {
        "log.showSignature": "true", "log.follow": "true", "trailer.separators": "=", "color.ui": "always",
        "i18n.commitEncoding": "latin1", "i18n.logOutputEncoding": "latin1", "core.quotePath": "true",
        "core.commentChar": "P", "commit.cleanup": "strip", "diff.noprefix": "true", "core.abbrev": "40",
        "status.branch": "true", "core.splitIndex": "true", "core.ignoreCase": "true", "commit.verbose": "true",
    }.items():  # fmt: skip
        world.git("config", name, value)
    return world


KINDS = (packed, sha256, worktree, sparse, replaced, bothered)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_kinds_of_repositories_that_work(
    begun: Quick, tmp_path: Path, kind: Callable[[Quick, Path], Quick]
) -> None:
    world = kind(begun, tmp_path / "place")
    world.run("run", "--next")
    assert here(world, "status")["phases"][0]["state"] == "awaiting_approval"
    assert here(world, "audit")["findings"] == []
    assert "\nPhases-Entry: 0007\n" in world.git("cat-file", "commit", "HEAD")


CRLF = WORKER + "printf 'a,b\\r\\n1,2\\r\\n' > \"$PHASES_OUT/table.csv\"\n"


def crlf_world(make_quick: Callable[..., Quick], attributes: str = "", **config: str) -> Quick:
    """A world whose worker writes a file with CRLF."""
    document = plan()
    document["phases"][0]["features"][0]["outputs"].append("table.csv")
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
    assert b"\r\n" in subprocess.run(
        ["git", "cat-file", "blob", "HEAD:results/Q-001/table.csv"], cwd=quick.root, capture_output=True, check=True
    ).stdout  # fmt: skip
    holds(quick)


def test_text_attributes_that_would_change_a_result_keep_it_until_they_are_mended(
    make_quick: Callable[..., Quick],
) -> None:
    quick = crlf_world(make_quick, "* text=auto\n")
    head = quick.git("rev-parse", "HEAD")
    done = quick.run("run", "--next", code=7)
    assert "git would store results/Q-001/table.csv with other bytes than it has" in done.stderr
    assert "results/** -text" in done.stderr
    assert quick.git("rev-parse", "HEAD") == head
    quick.write(".gitattributes", "* text=auto\nresults/** -text -filter\n")
    quick.git("add", ".gitattributes")
    quick.git("commit", "-q", "-m", "results are bytes", ".gitattributes")
    quick.run("run", "--next")
    assert kinds(quick).count("STARTED") == 1  # what was done was kept
    holds(quick)


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
    refused(quick, 7, ".gitattributes gives", "add `")


def test_a_ledger_checked_out_with_other_line_ends_is_named(begun: Quick, tmp_path: Path) -> None:
    other = clone(begun, tmp_path / "windows", "-c", "core.autocrlf=true")
    refused(other, 3, "line ends")
