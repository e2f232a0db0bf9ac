"""What a run takes of a commit for an experiment: code, and the record only where it is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from quick import WORKER, Quick, feature, plan

from phases.record.receipt import list_packages


@pytest.mark.parametrize(
    ("check", "names"),
    [
        ("test ! -e results/Q-001 && test ! -e progress.txt", {}),
        ("test -s results/Q-001/result.json", {"command": "sh worker.sh # results/Q-001"}),
        ("test -s progress.txt", {"command": "sh worker.sh progress.txt"}),
        ("test -s results/Q-001/receipt.json", {"inputs": ["first"]}),
    ],
    ids=["not named", "in the command", "the ledger", "as an input"],
)
def test_the_record_is_in_the_copy_only_where_the_plan_names_it(
    check: str, names: dict[str, object], tmp_path: Path
) -> None:
    document = plan()
    document["phases"][0]["features"].append(feature(2, **names))
    if "inputs" in names:
        document["inputs"] = [{"name": "first", "path": "results/notes.md"}]
    quick = Quick(tmp_path / "quick", document)
    quick.write("results/notes.md", "the user's\n")
    quick.commit("notes beside the results")
    quick.run("run", "--feature", "Q-001")
    quick.write("worker.sh", f"{check} || exit 1\n{WORKER}")
    quick.commit("the second feature looks around")
    quick.run("run", "--feature", "Q-002")
    assert quick.states() == {"Q-001": "verified", "Q-002": "verified"}
    quick.assert_audit_is_clean()


def test_commits_of_the_user_between_features_are_run(tmp_path: Path) -> None:
    """What was read of the code is kept while the runner alone commits."""
    quick = Quick(tmp_path / "quick", plan(features=3))
    root = quick.root
    # The first feature's work commits a change of the worker, as the user may at any time.
    worker = root / "worker.sh"
    step = f"cd {root} && echo 'exit 3' > worker.sh && git commit -q -m changed worker.sh"
    worker.write_text(f"{WORKER}\n({step})\n")
    quick.commit("a worker that changes itself")
    quick.run("run", "--next", code=1)
    assert quick.states() == {"Q-001": "verified", "Q-002": "errored", "Q-003": "pending"}
    assert "ended with exit 3" in quick.progress


def test_the_receipt_lists_what_was_installed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = list_packages()
    assert "pytest" in before

    metadata = tmp_path / "late-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    assert list_packages() == {**before, "late": "1.0"}

    # Rewritten in place, as by an editable install.
    metadata.write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0.1\n")
    assert list_packages() == {**before, "late": "1.0.1"}
