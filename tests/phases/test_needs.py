"""What a feature gets of those that it needs: links to artifacts, their code, and STARTED."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import EXPERIMENT, GATE, Toy, toy_plan

from phases.base.durable import sha256
from phases.base.paths import Paths
from phases.record.ledger import EntryKind, parse_ledger

NEEDS = """
import hashlib, json, os, pathlib
entry = json.load(open(os.environ["PHASES_INPUTS"]))["TOY-001"]
folder = pathlib.Path(entry["path"])
stored = folder / "artifacts/numbers.json"
needs = {
    "started": os.environ["PHASES_STARTED"],
    "is_link": [stored.is_symlink(), (folder / "note.md").is_symlink()],
    "mode": oct(stored.stat().st_mode & 0o777),
    "numbers": json.loads(stored.read_text()),
    "entry": entry,
}
if "code" in entry:
    code = pathlib.Path(entry["code"])
    needs["files"] = sorted(str(p.relative_to(code)) for p in code.rglob("*") if p.is_file())
    needs["code"] = hashlib.sha256((code / "experiment.py").read_bytes()).hexdigest()
MORE
(pathlib.Path(os.environ["PHASES_OUT"]) / "needs.json").write_text(json.dumps(needs))
"""
NEEDS_GATE = f"""{GATE}
def test_started_is_that_of_the_experiment():
    needs = json.loads((out() / "needs.json").read_text())
    entry = json.loads(pathlib.Path(os.environ["PHASES_INPUTS"]).read_text())["TOY-001"]
    assert needs["started"] == os.environ["PHASES_STARTED"]
    assert needs["numbers"] == json.loads(
        (pathlib.Path(entry["path"]) / "artifacts/numbers.json").read_text()
    )
    assert needs["entry"]["receipt"] == entry["receipt"]
    assert needs["entry"].get("commit") == entry.get("commit")
    assert needs.get("files", []) == sorted(
        str(path.relative_to(entry["code"]))
        for path in (pathlib.Path(entry["code"]).rglob("*") if "code" in entry else [])
        if path.is_file()
    )
"""


def needing_toy(root: Path, more: str = "", **changes: Any) -> Toy:
    """Return a toy repository whose second feature needs the first, which has been run."""
    plan = toy_plan()
    second = plan["phases"][0]["features"][1]
    second["needs"] = ["TOY-001"]
    second["command"] = f"{sys.executable} experiment.py && {sys.executable} needs.py"
    second["outputs"] = [*second["outputs"], "needs.json"]
    second["gate"] = {"pytest": "gates/needs/test_needs.py"}
    second["exempt"] = [{"files": "needs.json", "reason": "the toy gate judges some of it"}]
    second.update(changes)
    toy = Toy(root, plan)
    toy.write("needs.py", NEEDS.replace("MORE", more))
    toy.write("gates/needs/test_needs.py", NEEDS_GATE)
    toy.commit("what the second feature runs")
    toy.run("run", "--feature", "TOY-001")
    return toy


def started_hash(toy: Toy, feature: str) -> str:
    """Return the hash of the newest STARTED entry of a feature."""
    entries = parse_ledger((toy.root / "progress.txt").read_bytes()).entries
    started = [e for e in entries if e.kind == EntryKind.STARTED and e.feature == feature]
    return started[-1].self_hash


def stored_needs(toy: Toy) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((toy.root / "results/TOY-002/needs.json").read_text())
    return document


def test_artifacts_of_needs_are_links_and_the_rest_is_copied(tmp_path: Path) -> None:
    toy = needing_toy(tmp_path / "toy")
    toy.run("run", "--feature", "TOY-002")
    needs = stored_needs(toy)
    assert needs["is_link"] == [True, False]
    assert needs["mode"] == "0o444"
    assert "code" not in needs["entry"]
    assert needs["started"] == started_hash(toy, "TOY-002")
    toy.assert_audit_is_clean()


def test_the_code_of_needs_is_that_of_their_receipts(tmp_path: Path) -> None:
    toy = needing_toy(tmp_path / "toy", code_of_needs=True)
    before = toy.git("rev-parse", "HEAD~1")  # the runner's commit is HEAD
    receipt = json.loads((toy.root / "results/TOY-001/receipt.json").read_text())
    toy.write("experiment.py", f"# an edit\n{EXPERIMENT}")
    toy.commit("the code changes")
    toy.run("run", "--feature", "TOY-002")
    needs = stored_needs(toy)
    stated = receipt["predicate"]["buildDefinition"]["resolvedDependencies"]
    (commit,) = [item["digest"]["gitCommit"] for item in stated if item["uri"] == "git"]
    assert needs["entry"]["commit"] == commit == before
    assert needs["code"] == sha256(EXPERIMENT.encode())
    tracked = toy.git("ls-tree", "-r", "--name-only", commit).splitlines()
    assert needs["files"] == sorted(tracked)  # nothing of the record, which began later
    toy.run("verify", "TOY-002")
    toy.assert_audit_is_clean()


def test_features_of_one_code_share_one_folder(tmp_path: Path) -> None:
    plan = toy_plan(features=3)
    third = plan["phases"][0]["features"][2]
    third["needs"] = ["TOY-001", "TOY-002"]
    third["code_of_needs"] = True
    folders = 'len({json.load(open(os.environ["PHASES_INPUTS"]))[i]["code"] for i in IDS})'
    third["command"] = f"{sys.executable} experiment.py && {sys.executable} count.py"
    toy = Toy(tmp_path / "toy", plan)
    script = f'import json, os\nIDS = ["TOY-001", "TOY-002"]\nassert {folders} == 1\n'
    toy.write("count.py", script)
    toy.commit("what the third feature runs")
    toy.run("run", "--next")
    assert toy.states()["TOY-003"] == "verified"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("stored.chmod(0o644); stored.write_text('[1]')", "overwritten through the link"),
        ("os.unlink(os.path.realpath(stored))", "deleted"),
    ],
)
def test_an_experiment_that_changes_the_store_is_errored(
    tmp_path: Path, change: str, what: str
) -> None:
    toy = needing_toy(tmp_path / "toy", change)
    toy.run("run", "--feature", "TOY-002", code=1)
    assert toy.states()["TOY-002"] == "errored", what
    reason = "TOY-001: the stored artifacts/numbers.json was changed while it ran"
    assert reason in (toy.root / "progress.txt").read_text()


def test_an_experiment_that_replaces_the_link_changes_nothing(tmp_path: Path) -> None:
    change = "stored.unlink(); stored.write_text('[1]'); (folder / 'note.md').write_text('x')"
    toy = needing_toy(tmp_path / "toy", change)
    toy.run("run", "--feature", "TOY-002")
    assert toy.states() == {"TOY-001": "verified", "TOY-002": "verified"}
    toy.assert_audit_is_clean()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to files that are read-only")
def test_a_user_cannot_write_to_the_store_by_mistake(tmp_path: Path) -> None:
    toy = needing_toy(tmp_path / "toy", "stored.write_text('[1]')")
    toy.run("run", "--feature", "TOY-002", code=1)
    paths = Paths(toy.root, toy.root / ".git", "results")
    receipt = json.loads((toy.root / "results/TOY-001/receipt.json").read_text())
    subjects = {item["name"]: item["digest"]["sha256"] for item in receipt["subject"]}
    digest = subjects["artifacts/numbers.json"]
    assert json.loads(paths.artifact(digest).read_text()) == [3, 1, 4, 1, 5]


def test_a_scratch_run_has_no_started_entry(tmp_path: Path) -> None:
    toy = needing_toy(tmp_path / "toy")
    command = "os.environ.get('PHASES_STARTED', 'none')"
    script = NEEDS.replace('os.environ["PHASES_STARTED"]', command)
    toy.write("needs.py", script.replace("MORE", "assert needs['started'] == 'none'"))
    toy.write("gates/needs/test_needs.py", GATE)
    toy.run("run", "--feature", "TOY-002", "--scratch")


def test_code_of_needs_wants_needs(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy")
    toy.change_plan(code_of_needs=True)
    refused = toy.run("status", code=2)
    assert "code_of_needs is true and needs is empty" in refused.stderr
