"""Nothing that the user's index says of the runner's files changes what a commit holds."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from converging import git_shim
from invariants import leftovers, violations
from quick import Quick, plan

from phases.record.ledger import parse_ledger
from tests.soak import mark_soak

Change = Callable[[Quick], object]
RECORDS = ("progress.txt", "results")


@pytest.fixture(scope="session")
def _mid_phase(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = Quick(tmp_path_factory.mktemp("mid-phase") / "quick", plan(features=2))
    quick.write("user.txt", "the user's\n")
    quick.commit("a file of the user's")
    quick.run("run", "--feature", "Q-001")
    return quick


@pytest.fixture
def mid_phase(_mid_phase: Quick, tmp_path: Path) -> Quick:
    """Return a repository of which one of two features was run."""
    return _mid_phase.copy(tmp_path / "quick")


def tracked(quick: Quick, *paths: str) -> list[str]:
    return quick.git("ls-files", "--", *paths).splitlines()


def flags(quick: Quick, path: str) -> str:
    """Return git's letter for a path: H, S skip-worktree, h assume-unchanged, s both."""
    return quick.git("ls-files", "-v", "--", path)[:1]


def committed(quick: Quick, path: str, commit: str = "HEAD") -> bytes:
    return subprocess.run(
        ["git", "cat-file", "blob", f"{commit}:{path}"],
        cwd=quick.root,
        capture_output=True,
        check=True,
    ).stdout


def assert_recorded(quick: Quick) -> None:
    """Assert that HEAD holds the files of the disk and the entry that its trailer names."""
    trailer = quick.git("log", "-1", "--format=%(trailers:key=Phases-Entry,valueonly)").strip()
    text = committed(quick, "progress.txt")
    assert f"{len(parse_ledger(text).entries):04d}" == trailer
    for path in quick.git("ls-tree", "-r", "--name-only", "HEAD", *RECORDS).splitlines():
        assert committed(quick, path) == (quick.root / path).read_bytes(), path
    quick.assert_audit_is_clean()
    assert violations(quick.root) == []
    assert leftovers(quick.root, quick.temporary) == []


#### flags


def set_flags(*options: str) -> Change:
    def change(quick: Quick) -> None:
        for option in options:
            quick.git("update-index", option, *tracked(quick, *RECORDS, "user.txt"))

    return change


FLAGS = {
    "skip-worktree": ("S", set_flags("--skip-worktree")),
    "assume-unchanged": ("h", set_flags("--assume-unchanged")),
    "both": ("s", set_flags("--skip-worktree", "--assume-unchanged")),
}
RUNS = (("--next",), ("--feature", "Q-001", "--force"))
FLAG_CASES = [(name, run) for name in FLAGS for run in RUNS]
SHORT_FLAG_CASES = [("skip-worktree", RUNS[1]), ("both", RUNS[0])]


@pytest.mark.parametrize(("name", "run"), mark_soak(FLAG_CASES, short=SHORT_FLAG_CASES))
def test_i_12_flags_of_the_index_do_not_keep_a_file_out_of_a_commit(
    mid_phase: Quick, name: str, run: tuple[str, ...]
) -> None:
    letter, change = FLAGS[name]
    change(mid_phase)
    assert flags(mid_phase, "progress.txt") == letter
    mid_phase.run("run", *run)
    assert_recorded(mid_phase)
    assert flags(mid_phase, "progress.txt") == "H"
    assert flags(mid_phase, "user.txt") == letter, "a flag of the user's on another file"


@pytest.mark.parametrize("name", FLAGS)
def test_i_12_control_git_alone_does_not_see_a_file_with_a_flag(
    mid_phase: Quick, name: str
) -> None:
    FLAGS[name][1](mid_phase)
    with (mid_phase.root / "progress.txt").open("a") as file:
        file.write("more\n")
    assert mid_phase.git("status", "--porcelain") == ""
    if name != "assume-unchanged":  # `commit --only` reads such a file
        with pytest.raises(subprocess.CalledProcessError):
            mid_phase.git("commit", "-q", "--only", "-m", "more", "--", "progress.txt")


#### other states of the index


def staged_otherwise(quick: Quick) -> None:
    text = quick.progress
    quick.write("progress.txt", "another text\n")
    quick.git("add", "progress.txt")
    quick.write("progress.txt", text)


def staged_then_hidden(quick: Quick) -> None:
    staged_otherwise(quick)
    quick.git("update-index", "--skip-worktree", "progress.txt")


def removed_from_the_index(quick: Quick) -> None:
    quick.git("rm", "-q", "--cached", "progress.txt", "results/phase-1/lock.json")


def intent_to_add(quick: Quick) -> None:
    """Announce two files that the next run writes, and hide one."""
    quick.write("results/Q-002/result.json", "{}\n")
    quick.write("results/Q-002/receipt.json", "{}\n")
    quick.git("add", "-N", "results/Q-002/result.json", "results/Q-002/receipt.json")
    (quick.root / "results/Q-002/result.json").unlink()
    (quick.root / "results/Q-002/receipt.json").unlink()
    quick.git("update-index", "--skip-worktree", "results/Q-002/receipt.json")


def hidden_and_new(quick: Quick) -> None:
    """Stage and hide a file that HEAD lacks and the next run writes."""
    quick.write("results/Q-002/result.json", "{}\n")
    quick.git("add", "results/Q-002/result.json")
    quick.git("update-index", "--skip-worktree", "results/Q-002/result.json")
    (quick.root / "results/Q-002/result.json").unlink()


def a_file_in_the_place_of_a_folder(quick: Quick) -> None:
    quick.write("results/Q-002", "no folder\n")
    quick.git("add", "results/Q-002")
    (quick.root / "results/Q-002").unlink()


def settings(**values: str) -> Change:
    def change(quick: Quick) -> None:
        for name, value in values.items():
            quick.git("config", name.replace("_", "."), value)
        quick.git("update-index", "--refresh")

    return change


def split_index(quick: Quick) -> None:
    quick.git("update-index", "--split-index")
    set_flags("--skip-worktree")(quick)


def untracked_cache(quick: Quick) -> None:
    settings(feature_manyFiles="true")(quick)
    quick.git("update-index", "--force-untracked-cache", "--index-version", "4")
    set_flags("--assume-unchanged")(quick)


STATES = {
    "staged otherwise": staged_otherwise,
    "staged, then hidden": staged_then_hidden,
    "removed from the index": removed_from_the_index,
    "intent to add": intent_to_add,
    "hidden and new": hidden_and_new,
    "file in the place of a folder": a_file_in_the_place_of_a_folder,
    "ignoreStat": settings(core_ignoreStat="true"),
    "times": settings(core_trustctime="false", core_checkStat="minimal"),
    "fileMode": settings(core_fileMode="false"),
    "split index": split_index,
    "untracked cache": untracked_cache,
}
SHORT_STATES = {"staged, then hidden", "intent to add", "ignoreStat", "split index"}


@pytest.mark.parametrize("name", mark_soak(STATES, short=SHORT_STATES))
def test_i_12_states_of_the_index_do_not_change_a_commit(mid_phase: Quick, name: str) -> None:
    STATES[name](mid_phase)
    mid_phase.run("run", "--next")
    assert_recorded(mid_phase)
    mid_phase.run("run", "--feature", "Q-001", "--force")
    assert_recorded(mid_phase)
    for path in tracked(mid_phase, *RECORDS):
        assert flags(mid_phase, path) == "H", path


#### sparse checkouts


def cone(*options: str) -> Change:
    return lambda quick: quick.git("sparse-checkout", "set", *options, "prd", "results/phase-1")


def patterns(quick: Quick) -> None:
    left_out = ("!/results/Q-001/", "!/results/Q-002/", "!/elsewhere/")
    quick.git("sparse-checkout", "set", "--no-cone", "/*", *left_out)


SPARSE = {
    "cone": cone("--cone"),
    "sparse index": cone("--cone", "--sparse-index"),
    "patterns": patterns,
}


@pytest.mark.parametrize("name", mark_soak(SPARSE, short={"sparse index"}))
def test_i_12_results_outside_of_a_sparse_checkout_are_committed(
    mid_phase: Quick, name: str
) -> None:
    mid_phase.write("elsewhere/large.txt", "not in this checkout\n")
    mid_phase.commit("a folder that this checkout leaves out")
    SPARSE[name](mid_phase)
    assert not (mid_phase.root / "elsewhere").exists()
    assert not (mid_phase.root / "results/Q-001/result.json").exists()
    for feature in ("Q-001", "Q-002"):
        mid_phase.run("run", "--feature", feature, "--force")
        assert_recorded(mid_phase)
        assert mid_phase.git("status", "--porcelain") == ""
    assert flags(mid_phase, "elsewhere/large.txt") == "S"
    assert not (mid_phase.root / "elsewhere").exists()


#### a commit that holds something else


def commit_env(folder: Path, path: str) -> dict[str, str]:
    """Return a PATH whose git leaves a path out of the first commit."""
    return git_shim(folder, f"{shutil.which('git')} update-index --skip-worktree {path}")


@pytest.mark.parametrize("path", ["progress.txt", "results/Q-001/receipt.json"])
def test_i_12_a_commit_without_its_files_is_refused_until_it_is_taken_back(
    mid_phase: Quick, tmp_path: Path, path: str
) -> None:
    # 1. The runner sees it, and moves no ref.
    before = mid_phase.git("rev-parse", "HEAD")
    command = ("run", "--feature", "Q-001", "--force")
    result = mid_phase.run(*command, code=3, env=commit_env(tmp_path / "bin", path))
    wrong = mid_phase.git("rev-parse", "HEAD")
    assert wrong != before
    assert committed(mid_phase, path) == committed(mid_phase, path, before)
    assert f"the runner's commit {wrong[:12]} does not hold {path}" in result.stderr
    assert mid_phase.git("rev-parse", "refs/phases/log") == before

    # 2. So does the next run, for what is prepared is not recorded yet.
    again = mid_phase.run("run", "--next", code=3)
    assert f"the runner's commit {wrong[:12]} does not hold {path}" in again.stderr
    assert mid_phase.git("rev-parse", "refs/phases/log") == before
    assert len(list((mid_phase.root / ".phases/pending").iterdir())) == 1

    # 3. The hint works: the outcome is recorded, once, and the user's file stays as it is.
    hint = re.search(r"`git ([^`]+)`", again.stderr)
    assert hint
    mid_phase.git(*hint[1].split())
    mid_phase.run("run", "--next")
    assert_recorded(mid_phase)
    assert mid_phase.git("rev-parse", "refs/phases/log") == mid_phase.git("rev-parse", "HEAD")
    assert mid_phase.git("status", "--porcelain") == ""
