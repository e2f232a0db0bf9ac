"""The runner's own system calls fail or are killed; limits, signals and a stopped runner."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from converging import converges, run_behind, run_traced
from hints import follow
from invariants import entries, exit_violations, leftovers, progress, violations
from quick import Quick, plan
from test_git_faults import needs_strace

from tests.soak import mark_soak

ERRORS = (
    ("fsync", "EIO"),
    ("rename", "ENOSPC"),
    ("rename", "EIO"),
    ("mkdir", "EROFS"),
    ("ftruncate", "EIO"),
)
ERROR_CASES = [(*error, number) for error, number in itertools.product(ERRORS, range(1, 30))]
SHORT_ERROR_CASES = {("fsync", "EIO", 5), ("rename", "ENOSPC", 6)}
KILL_CASES = list(itertools.product(("fsync", "rename"), range(1, 45)))
SHORT_KILL_CASES = {("fsync", 14)}


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "number"), mark_soak(ERROR_CASES, short=SHORT_ERROR_CASES)
)
def test_an_error_of_the_disk_is_named(
    call: str, error: str, number: int, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    before = quick.git("rev-parse", "HEAD")
    result = run_traced(quick, f"{call}:error={error}:when={number}")
    assert exit_violations(result) == []
    assert result.returncode in (0, 7), result.stderr
    if result.returncode == 7:
        assert "error: " in result.stderr
        assert violations(quick.root) == []
        if "STARTED" not in quick.progress_or_nothing:
            assert quick.git("rev-parse", "HEAD") == before
    converges(quick, undisturbed, progress(quick.root))


@needs_strace
@pytest.mark.parametrize(("call", "number"), mark_soak(KILL_CASES, short=SHORT_KILL_CASES))
def test_killed_inside_a_durable_write(
    call: str, number: int, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    result = run_traced(quick, f"{call}:signal=SIGKILL:when={number}")
    assert result.returncode in (-9, 137, 0)
    converges(quick, undisturbed, progress(quick.root))


@needs_strace
def test_an_interrupted_call_is_repeated(quick: Quick, undisturbed: dict[str, Any]) -> None:
    """EINTR is no failure of the disk: Python itself calls again, for fsync too."""
    result = run_traced(quick, "fsync:error=EINTR:when=3")
    assert result.returncode == 0, result.stderr
    converges(quick, undisturbed, progress(quick.root), codes=(4,))


@pytest.mark.parametrize("limit", ["ulimit -f 2", "ulimit -n 24"], ids=["file size", "open files"])
def test_limits_are_named(limit: str, quick: Quick, undisturbed: dict[str, Any]) -> None:
    command = f"{limit}; exec {sys.executable} -m phases run --next"
    result = run_behind(quick, ["sh", "-c", command])
    codes = {0, 7}
    if "-f" in limit:
        codes = {7}
    assert result.returncode in codes, result.stderr
    assert exit_violations(result) == []
    assert violations(quick.root) == []
    converges(quick, undisturbed, progress(quick.root))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_too_little_disk_space_is_found_before_any_work(small_disk: Path) -> None:
    quick = Quick(small_disk / "quick")
    result = quick.run("run", "--next", code=7)
    assert "GB free; expected at least" in result.stderr
    assert "next: free disk space there" in result.stderr
    assert not (quick.root / "progress.txt").exists()


def test_a_commit_that_does_not_fit_is_refused_before_it_is_laid_out(
    small_disk: Path, quick: Quick
) -> None:
    result = quick.run("run", "--next", code=7, env={"TMPDIR": str(small_disk)})
    assert f"{small_disk}/phases-run-" in result.stderr
    assert "GB free; expected at least" in result.stderr
    assert "set TMPDIR to a larger disk" in result.stderr
    assert "STARTED" not in quick.progress_or_nothing


def test_a_full_folder_for_temporary_files_is_named(
    small_disk: Path, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    shutil.rmtree(quick.temporary)
    quick.temporary.symlink_to(small_disk)
    (small_disk / "filler").write_bytes(b"x" * 1_000_000)
    with (small_disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    # Python uses another folder than a TMPDIR that is full to the last byte.
    os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - 12_288)
    result = quick.run("run", "--next", code=None)
    assert result.returncode in (1, 7), result.stderr  # the experiment's disk is the same one
    assert exit_violations(result) == []
    assert violations(quick.root) == []
    assert "VERIFIED" not in [block.kind for block in entries(quick.root)]


def start(quick: Quick) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=quick.root,
        env=quick.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGTERM, 1), (signal.SIGHUP, 1), (signal.SIGINT, 2)]
)
def test_a_stop_signal_is_recorded_and_leaves_nothing(
    number: signal.Signals, times: int, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    quick.set_mode("hang")
    child = start(quick)
    quick.wait_for_worker()
    for _ in range(times):
        os.killpg(child.pid, number)  # as a terminal does: to the whole group
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert entries(quick.root)[-1].kind == "INTERRUPTED"
    assert leftovers(quick.root, quick.temporary) == []
    quick.set_mode("good")
    converges(quick, undisturbed, progress(quick.root))


def test_a_stopped_runner_keeps_its_lock(quick: Quick) -> None:
    quick.set_mode("slow")
    child = start(quick)
    try:
        while not (quick.root / ".git/phases/lock.json").exists():
            pass
        child.send_signal(signal.SIGSTOP)
        assert f"pid {child.pid} on " in quick.run("run", "--next", code=6).stderr
    finally:
        child.send_signal(signal.SIGCONT)
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert violations(quick.root) == []


#### something else in the place of a file: a reader of a FIFO would wait for ever


def make_socket(path: Path) -> None:
    """Bind a socket; the path of one is short, so it is bound from its folder."""
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (os.mkfifo, "a FIFO"),
    "folder": (Path.mkdir, "a folder"),
    "socket": (make_socket, "a socket"),
    "dangling link": (lambda path: path.symlink_to("nothing"), "a link that leads to no file"),
    "loop": (lambda path: path.symlink_to(path.name), "a link that leads to no file"),
}
IN_PLACE_OF_A_LEDGER = [
    *(("progress.txt", kind) for kind in KINDS),
    *((".git/phases/journal", kind) for kind in ("FIFO", "folder", "socket")),
]


@pytest.fixture(scope="session")
def _begun(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = Quick(tmp_path_factory.mktemp("begun") / "quick", plan(features=2))
    quick.run("run", "--feature", "Q-001")
    return quick


@pytest.fixture
def begun(_begun: Quick, tmp_path: Path) -> Quick:
    """Return a repository in which the first of two features is verified."""
    return _begun.copy(tmp_path / "quick")


def replace(quick: Quick, name: str, kind: str) -> None:
    """Put something else in the place of a file, or where there is none."""
    path = quick.root / name
    path.unlink(missing_ok=True)
    KINDS[kind][0](path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "kind"), IN_PLACE_OF_A_LEDGER)
def test_what_is_no_ledger_is_refused_at_once(begun: Quick, name: str, kind: str) -> None:
    replace(begun, name, kind)
    for arguments in (["status"], ["audit"], ["plan"], ["log"], ["run", "--next"]):
        refused = begun.run(*arguments, code=7)
        reason = f"{begun.root / name}: got {KINDS[kind][1]}; expected a regular file"
        assert refused.stderr.startswith(f"error: {reason}\nnext: `mv ")
    follow(begun.root, refused.stderr)
    begun.run("status")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_what_is_no_plan_lock_is_refused_before_any_work(begun: Quick, kind: str) -> None:
    replace(begun, "results/phase-1/lock.json", kind)
    before = begun.record_contents()
    assert "lock-changed" in begun.run("audit", code=3).stdout
    refused = begun.run("run", "--next", code=7)
    assert f"lock.json: got {KINDS[kind][1]}; expected a regular file" in refused.stderr
    assert begun.record_contents() == before
    follow(begun.root, refused.stderr)
    begun.run("run", "--next")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_what_is_no_receipt_is_named(begun: Quick, kind: str) -> None:
    replace(begun, "results/Q-001/receipt.json", kind)
    begun.run("status")
    assert "receipt-changed" in begun.run("audit", code=3).stdout
    assert f"got {KINDS[kind][1]}" in begun.run("show", "Q-001", code=7).stderr


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [".phases/logs/runner.log", ".git/phases/git-locks.json"])
def test_what_is_no_file_of_the_runners_own_stops_nothing(begun: Quick, name: str) -> None:
    replace(begun, name, "FIFO")
    begun.run("audit")
    begun.run("run", "--next")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [".git/phases/prepared", ".phases"])
def test_what_is_no_folder_of_the_runners_is_refused_before_any_work(
    begun: Quick, name: str
) -> None:
    shutil.rmtree(begun.root / name)
    os.mkfifo(begun.root / name)
    before = begun.record_contents()
    refused = begun.run("run", "--next", code=7)
    assert f"{name}/.writable: Not a directory" in refused.stderr
    assert begun.record_contents() == before
