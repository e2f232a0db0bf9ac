"""A view that reads while a runner records: it complains of nothing that comes of that alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from quick import Quick, plan

from phases.record.at_rest import READINGS

# The view's git: before its first call of $BESIDE_CALL (or each, if $BESIDE_OFTEN) something else
# happens in the repository.
GIT = """#!/bin/sh
for word in "$@"; do
    if [ "$word" = "$BESIDE_CALL" ] && { [ ! -e "$BESIDE_DONE" ] || [ -n "$BESIDE_OFTEN" ]; }; then
        echo once >> "$BESIDE_DONE"
        PATH="$BESIDE_PATH" sh -c "$BESIDE_COMMAND" >> "$BESIDE_DONE.log" 2>&1 || exit 1
    fi
done
exec "$BESIDE_GIT" "$@"
"""
RUN = f"{sys.executable} -m phases run --next"


def look(
    quick: Quick, view: str, call: str, command: str, *, code: int = 0, often: bool = False
) -> subprocess.CompletedProcess[str]:
    """Return what a view says if a shell command runs before one of its calls of git."""
    folder = quick.root.with_name("git-of-the-view")
    folder.mkdir()
    (folder / "git").write_text(GIT)
    (folder / "git").chmod(0o755)
    env = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "BESIDE_PATH": os.environ["PATH"],
        "BESIDE_GIT": str(shutil.which("git")),
        "BESIDE_CALL": call,
        "BESIDE_COMMAND": command,
        "BESIDE_DONE": str(folder / "done"),
        "BESIDE_OFTEN": "yes" if often else "",
    }
    result = quick.run(view, code=code, env=env)
    assert (folder / "done").exists(), f"{view} does not call git {call}"
    return result


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """Return a repository in which the first of two features is verified."""
    quick = Quick(tmp_path_factory.mktemp("begun") / "quick", plan(features=2))
    quick.run("run", "--feature", "Q-001")
    return quick


@pytest.mark.parametrize(
    ("view", "at", "call"),
    [
        ("status", "files", "log"),  # ledger-rewritten
        ("status", "committed", "merge-base"),  # ledger-rewritten
        ("status", "committed", "log"),  # log-ref-moved
        ("status", "files", "--full-history"),  # ledger-lacks-commit
        ("audit", "record", "log"),  # commit-entry, results-unrecorded
        ("audit", "committed", "log"),  # commit-entry, log-ref-moved
    ],
)
def test_a_view_beside_a_run_complains_of_nothing(
    view: str, at: str, call: str, begun: Quick, tmp_path: Path
) -> None:
    """The view begins when a runner is at a failpoint, and reads on when the phase has halted."""
    quick = begun.copy(tmp_path / "quick")
    quick.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": f"{at}:kill"})
    result = look(quick, view, call, RUN)
    assert "HALTED" in quick.progress
    assert result.stderr == ""
    if view == "audit":
        assert result.stdout.endswith("audit: ok\n"), result.stdout


def test_a_runner_between_journal_and_progress_txt_is_no_warning(
    begun: Quick, tmp_path: Path
) -> None:
    quick = begun.copy(tmp_path / "quick")
    quick.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "journalled:kill"})
    assert quick.run("status").stderr == (
        "note: progress.txt lacks its last entry, which the journal has: "
        "a runner writes it now, or the next run restores it\n"
    )
    assert quick.run("audit").stdout.endswith("audit: ok\n")


@pytest.mark.parametrize(("view", "code"), [("status", 0), ("audit", 3)])
def test_a_true_finding_is_not_hidden_by_a_record_that_never_rests(
    view: str, code: int, begun: Quick, tmp_path: Path
) -> None:
    quick = begun.copy(tmp_path / "quick")
    quick.git("update-ref", "-d", "refs/phases/log")
    move = "git commit -q --allow-empty -m moved"
    result = look(quick, view, "log", move, code=code, often=True)
    said = result.stdout + result.stderr
    assert "log-ref-missing" in said
    assert f"the record changed during each of {READINGS} readings" in said


def test_a_true_finding_of_a_record_at_rest_is_read_once(begun: Quick, tmp_path: Path) -> None:
    quick = begun.copy(tmp_path / "quick")
    quick.git("update-ref", "-d", "refs/phases/log")
    once_a_reading = "--full-history"
    result = look(quick, "status", once_a_reading, "true", often=True)
    assert "log-ref-missing" in result.stderr
    assert "readings" not in result.stderr
    assert (tmp_path / "git-of-the-view" / "done").read_text() == "once\n"
