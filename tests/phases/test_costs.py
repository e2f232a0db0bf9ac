"""What a run costs for each feature beside the work itself: processes of git, and fsyncs.

Each costs a millisecond or more, so a run of small features takes as long as it has of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from quick import Quick, plan
from test_git_faults import needs_strace

MAX_GIT = 8
"""Processes of git for one more feature. The runner's own are: what is untracked, blobs, index,
commit, ref; the files of the copy; which work trees there are (for a gate)."""
MAX_FSYNCS = 28
"""Fsyncs for one more feature: two entries, what is prepared, the results, git's objects, index and
refs."""

FSYNC = re.compile(r"^\d+ +(?:fsync|fdatasync)\(", re.MULTILINE)


def costs(folder: Path, features: int) -> tuple[int, int]:
    """Return how many processes of git and how many fsyncs a whole run has."""
    quick = Quick(folder / f"quick{features}", plan(features=features))
    trace = folder / f"trace{features}"
    calls = ["-e", "trace=execve,fsync,fdatasync", "-o", str(trace)]
    command = ["strace", "-f", "-qq", *calls, sys.executable, "-m", "phases", "run", "--next"]
    subprocess.run(
        command, cwd=quick.root, env=quick.environment(), capture_output=True, check=True
    )
    text = trace.read_text(errors="replace")
    assert quick.progress.count("VERIFIED") == features
    return text.count(f'execve("{shutil.which("git")}", '), len(FSYNC.findall(text))


@needs_strace
def test_a_feature_costs_few_git_processes_and_fsyncs(tmp_path: Path) -> None:
    git_of_2, fsyncs_of_2 = costs(tmp_path, 2)
    git_of_4, fsyncs_of_4 = costs(tmp_path, 4)
    assert 0 < git_of_4 - git_of_2 <= 2 * MAX_GIT
    assert 0 < fsyncs_of_4 - fsyncs_of_2 <= 2 * MAX_FSYNCS
