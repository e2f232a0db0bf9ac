"""Checkpoints, and the files of decisions: which there are, which nobody recorded, the next one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from story import DIGEST, TIME, Story
from toy import Toy

from phases.base import durable
from phases.base.paths import Paths
from phases.git.record_history import RecordCommit
from phases.git.repo import Repo
from phases.record import entries
from phases.record.approvals import (
    find_checkpoint,
    named_records,
    next_record_path,
    read_checkpoint,
    record_files,
    unrecorded_files,
)
from phases.record.entries import RecordedFile
from phases.record.evidence import Evidence
from phases.record.ledger import Ledger, new_header, parse_ledger, seal_entry

FOLDER = "prd/approvals"
TEXT = b"a record"
SHA256 = durable.sha256(TEXT)
TEMPORARY = f"{FOLDER}/.phase-1.1.json.0.tmp"


def naming(records: Mapping[str, str]) -> Ledger:
    """Return a ledger whose entries name these records, path -> SHA-256."""
    ledger = Ledger(new_header("Toy"), ())
    for path, sha256 in records.items():
        line = RecordedFile(sha256, path).line(entries.RECORD)
        ledger = ledger.with_entry(seal_entry(ledger, "APPROVED", (line,), time=TIME, phase=1))
    return ledger.with_entry(seal_entry(ledger, "STARTED", ("attempt 1",), time=TIME))


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (root / FOLDER / name).write_bytes(TEXT)


#### which files there are


def test_every_file_is_found_with_its_digest(tmp_path: Path) -> None:
    assert record_files(tmp_path) == {}
    write(tmp_path, "phase-1.1.json", "more/deep/x")
    (tmp_path / FOLDER / "empty").mkdir()
    expected = {f"{FOLDER}/phase-1.1.json": SHA256, f"{FOLDER}/more/deep/x": SHA256}
    assert record_files(tmp_path) == expected


def test_what_is_no_file_is_found_without_a_digest(tmp_path: Path) -> None:
    write(tmp_path, "file")
    folder = tmp_path / FOLDER
    os.mkfifo(folder / "fifo")
    (folder / "nothing").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "link").symlink_to("file")
    found = record_files(tmp_path)
    without = {f"{FOLDER}/{name}": "" for name in ("fifo", "nothing", "loop", "folder")}
    assert found == {**without, f"{FOLDER}/link": SHA256, f"{FOLDER}/file": SHA256}


@pytest.mark.parametrize("kind", ["file", "fifo", "link"])
def test_what_stands_in_the_place_of_the_folder_is_found(tmp_path: Path, kind: str) -> None:
    (tmp_path / "prd").mkdir()
    path = tmp_path / FOLDER
    if kind == "file":
        path.write_bytes(TEXT)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    assert record_files(tmp_path) == {FOLDER: SHA256 if kind == "file" else ""}


def test_what_a_killed_write_left_is_left_out(tmp_path: Path) -> None:
    assert durable.is_temporary(Path(TEMPORARY))
    write(tmp_path, Path(TEMPORARY).name, "phase-1.1.json")
    expected = {f"{FOLDER}/phase-1.1.json": SHA256}
    assert record_files(tmp_path) == expected
    (tmp_path / TEMPORARY).unlink()
    (tmp_path / TEMPORARY).symlink_to("nowhere")  # no write leaves a link
    assert record_files(tmp_path) == {TEMPORARY: "", **expected}


#### which of them nobody recorded


def test_a_record_is_named_by_the_last_entry_that_names_it() -> None:
    ledger = naming({f"{FOLDER}/a": "12" * 32, f"{FOLDER}/b": DIGEST})
    line = RecordedFile(SHA256, f"{FOLDER}/a").line(entries.RECORD)
    ledger = ledger.with_entry(seal_entry(ledger, "REJECTED", (line,), time=TIME, phase=1))
    assert named_records(ledger) == {f"{FOLDER}/a": SHA256, f"{FOLDER}/b": DIGEST}


def test_a_file_is_recorded_if_an_entry_names_its_bytes(tmp_path: Path) -> None:
    write(tmp_path, "good", "other", "unnamed")
    ledger = naming({f"{FOLDER}/good": SHA256, f"{FOLDER}/other": DIGEST, f"{FOLDER}/gone": DIGEST})
    reasons = unrecorded_files(tmp_path, ledger, is_committed=False)
    assert set(reasons) == {f"{FOLDER}/other", f"{FOLDER}/unnamed"}
    assert all(reasons.values())


def test_files_of_head_are_looked_at_too(quick_toy: Toy) -> None:
    root = quick_toy.root
    write(root, "good", "unnamed", Path(TEMPORARY).name, "ä b")
    (root / "prd/elsewhere").write_bytes(TEXT)
    quick_toy.commit("records")
    for name in ("unnamed", Path(TEMPORARY).name, "ä b"):
        (root / FOLDER / name).unlink()
    ledger = naming({f"{FOLDER}/good": SHA256})
    assert unrecorded_files(root, ledger, is_committed=False) == {}
    reasons = unrecorded_files(root, ledger, is_committed=True)
    assert set(reasons) == {f"{FOLDER}/unnamed", f"{FOLDER}/ä b"}
    assert all(reasons.values())


@pytest.fixture
def quick_toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "toy")


#### the next one


@pytest.mark.parametrize(
    ("named", "there", "number"),
    [
        ([], [], 1),
        (["phase-1.1.json"], [], 2),
        (["phase-1.1.json", "phase-1.2.json"], [], 3),
        (["phase-1.1.json"], ["phase-1.2.json", "phase-1.3.json"], 4),
        (["phase-1.1.json"], ["phase-1.2.json"], 3),
        ([], ["phase-1.2.json"], 1),
        (["phase-11.1.json", "phase-2.1.json", "phase-1x.json"], ["phase-2.1.json"], 1),
    ],
)
def test_the_next_number_is_not_taken(
    tmp_path: Path, named: list[str], there: list[str], number: int
) -> None:
    write(tmp_path, *there)
    ledger = naming({f"{FOLDER}/{name}": DIGEST for name in named})
    path = next_record_path(Paths(tmp_path, tmp_path, "results"), ledger, 1)
    assert path == (f"{FOLDER}/phase-1.{number}.json", number)


#### checkpoints


def test_a_checkpoint_is_what_its_commit_holds(quick_toy: Toy) -> None:
    ledger = Story().lock().halt().ledger
    quick_toy.write("results/request.json", "a request")
    (quick_toy.root / "progress.txt").write_bytes(ledger.data)
    quick_toy.commit("a checkpoint")
    commit, tree = (quick_toy.git("rev-parse", name) for name in ("HEAD", "HEAD^{tree}"))
    repo = Repo(quick_toy.root)
    checkpoint = read_checkpoint(repo, commit, 3, 2, "results/request.json")
    assert checkpoint is not None
    assert (checkpoint.phase, checkpoint.entry) == (3, 2)
    assert [item.model_dump(exclude_none=True) for item in checkpoint.subject] == [
        {"name": "commit", "digest": {"gitCommit": commit, "gitTree": tree}},
        {
            "name": "progress.txt",
            "digest": {"sha256": durable.sha256(ledger.data)},
            "annotations": {"size": len(ledger.data), "head": ledger.head, "entry": 2},
        },
        {"name": "results/request.json", "digest": {"sha256": durable.sha256(b"a request")}},
    ]
    assert parse_ledger(ledger.data).head == ledger.head

    # By the commit that recorded the entry.
    evidence = Evidence({2: RecordCommit(commit, tree, (), {}, {})})
    assert find_checkpoint(repo, evidence, 3, 2, "results/request.json") == checkpoint
    assert find_checkpoint(repo, evidence, 3, 1, "results/request.json") is None

    # Without a request or without progress.txt there is none.
    assert read_checkpoint(repo, commit, 3, 2, "results/other.json") is None
    quick_toy.git("rm", "-q", "progress.txt")
    quick_toy.git("commit", "-q", "-m", "no progress")
    head = quick_toy.git("rev-parse", "HEAD")
    assert read_checkpoint(repo, head, 3, 2, "results/request.json") is None
