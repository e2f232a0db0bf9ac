"""I-32 to I-34: what entries name is compared in HEAD and in the work tree, and what they do not.

What a commit itself holds is forged in `test_forged.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eventful import change, decide, run
from forged_record import Place, audit_report, describe
from quick import Quick

from phases.base import durable
from tests.soak import mark_soak

DOCUMENTS = {
    "results/Q-001/receipt.json": "receipt-changed",
    "results/Q-001/verdict.json": "verdict-changed",
    "results/Q-002/receipt.json": "receipt-changed",
    "results/Q-002/verdict.json": "verdict-changed",
    "results/Q-002/attempts/1.json": "named-file-changed",
    "results/Q-002/attempts/2.json": "named-file-changed",
    "results/Q-003/attempts/1.json": "named-file-changed",
    "results/Q-004/receipt.json": "receipt-changed",
    "results/Q-004/verdict.json": "verdict-changed",
    "results/phase-1/lock.json": "lock-changed",
    "results/phase-1/request.json": "named-file-changed",
    "results/phase-1/verdict.json": "named-file-changed",
    "results/phase-2/lock.json": "lock-changed",
    "results/phase-2/request.json": "named-file-changed",
    "results/phase-2/verdict.json": "named-file-changed",
}
OUTPUTS = {
    "results/Q-001/extra.txt": "result-changed",
    "results/Q-001/note.md": "result-changed",
    "results/Q-001/result.json": "result-changed",
    "results/Q-002/result.json": "result-changed",
    "results/Q-004/numbers.json": "result-changed",
}
DECISIONS = {
    "prd/approvals/phase-1.1.json": "approval-missing",
    "prd/approvals/phase-2.1.json": "approval-missing",
    "prd/approvals/phase-2.2.json": "approval-missing",
    "prd/approvals/phase-2.3.json": "approval-missing",
}

#### I-32: ways to change a file that an entry names


def edit(file: Path) -> None:
    """Append a blank: a JSON document says the same."""
    file.write_bytes(file.read_bytes() + b" ")


def delete(file: Path) -> None:
    """Delete a file."""
    file.unlink()


def link(file: Path) -> None:
    """Put a link in the place of a file; it leads to the same bytes."""
    target = file.with_name(f"{file.name}.true")
    file.rename(target)
    file.symlink_to(target.name)


def folder(file: Path) -> None:
    """Put a folder in the place of a file."""
    file.unlink()
    file.mkdir()
    (file / "more").write_text("more\n")


def pipe(file: Path) -> None:
    """Put a FIFO in the place of a file."""
    file.unlink()
    os.mkfifo(file)


def committed(quick: Quick, paths: list[str], do: Callable[[Path], None]) -> Quick:
    """Change the files and commit it as a user does."""
    in_work_tree(quick, paths, do)
    quick.commit("a small correction")
    return quick


def in_clone(quick: Quick, paths: list[str], do: Callable[[Path], None]) -> Quick:
    """Change and commit the files, and look at them in a clone."""
    committed(quick, paths, do)
    root = quick.root.with_name("clone")
    quick.git("clone", "-q", str(quick.root), str(root))
    return quick.at(root)


def only_in_head(quick: Quick, paths: list[str], do: Callable[[Path], None]) -> Quick:
    """Commit it, and have the true files in the work tree."""
    committed(quick, paths, do)
    for path in paths:
        file = quick.root / path
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
    quick.git("checkout", "-q", "HEAD~1", "--", *paths)
    quick.git("reset", "-q")
    return quick


def in_work_tree(quick: Quick, paths: list[str], do: Callable[[Path], None]) -> Quick:
    """Change the files and commit nothing."""
    for path in paths:
        do(quick.root / path)
    return quick


def assume_unchanged(quick: Quick, paths: list[str], do: Callable[[Path], None]) -> Quick:
    """Change the files behind the index's back."""
    quick.git("update-index", "--assume-unchanged", *paths)
    return in_work_tree(quick, paths, do)


def skip_worktree(quick: Quick, paths: list[str], do: Callable[[Path], None]) -> Quick:
    """Change them behind another flag."""
    quick.git("update-index", "--skip-worktree", *paths)
    return in_work_tree(quick, paths, do)


WAYS = [
    (committed, edit),
    (committed, delete),
    (committed, link),
    (in_clone, edit),
    (in_clone, delete),
    (in_clone, link),
    (only_in_head, edit),
    (only_in_head, delete),
    (only_in_head, folder),
    (in_work_tree, edit),
    (in_work_tree, delete),
    (in_work_tree, link),
    (in_work_tree, folder),
    (in_work_tree, pipe),
    (assume_unchanged, edit),
    (skip_worktree, edit),
]
Way = Callable[[Quick, list[str], Callable[[Path], None]], Quick]


def changed_errors(quick: Quick) -> dict[str, str]:
    """Return path -> code of the audit's errors; there must be some."""
    code, report = audit_report(quick)
    assert code == 3
    errors = [item for item in report["findings"] if item["severity"] == "error"]
    return {item["path"]: item["code"] for item in errors}


RARE = [(committed, link), (in_clone, link), (only_in_head, delete), (skip_worktree, edit)]


@pytest.mark.parametrize(
    ("way", "do"),
    mark_soak(WAYS, short=[item for item in WAYS if item not in RARE]),
    ids=lambda item: item.__name__,
)
def test_everything_that_an_entry_names_is_compared_i_32(
    eventful: Quick, way: Way, do: Callable[[Path], None]
) -> None:
    files = DOCUMENTS | OUTPUTS
    assert changed_errors(way(eventful, list(files), do)) == files


@pytest.mark.parametrize(
    ("way", "do"),
    [(in_clone, edit), (in_work_tree, link), (in_work_tree, folder), (skip_worktree, edit)],
    ids=lambda item: item.__name__,
)
def test_every_decision_is_compared_i_32(
    eventful: Quick, way: Way, do: Callable[[Path], None]
) -> None:
    errors = changed_errors(way(eventful, list(DECISIONS), do))
    assert errors.items() >= DECISIONS.items(), errors


def test_control_another_mode_is_the_same_file_i_32(eventful: Quick) -> None:
    for path in (*DOCUMENTS, *OUTPUTS, *DECISIONS):
        (eventful.root / path).chmod(0o755)
    eventful.commit("all is executable")
    code, report = audit_report(eventful)
    assert (code, report["findings"]) == (0, []), describe(report["findings"])


@pytest.mark.parametrize("failpoint", ["prepared", "entered", "files", "committed"])
def test_control_what_a_killed_run_leaves_is_no_finding_i_32(
    eventful: Quick, failpoint: str
) -> None:
    """A repeated attempt: the work tree has the new files, or HEAD's, or both."""
    run(eventful, "--next", code=-9, PHASES_FAILPOINT=f"{failpoint}:kill")
    code, report = audit_report(eventful)
    assert (code, report["findings"]) == (0, []), describe(report["findings"])


#### I-33: files that no entry names


def plant_everything(quick: Quick) -> dict[str, str]:
    """Put files among the results that no run made; return path -> `committed` or not."""
    planted = {
        "results/TOY-099/result.json": "{}\n",
        "results/TOY-099/receipt.json": "{}\n",
        "results/Q-001/figures/b.png": "painted\n",
        "results/Q-003/result.json": "{}\n",  # it failed and was waived
        "results/Q-002/attempts/3.json": "{}\n",  # this one was verified
        "results/phase-2/lock-2.json": "{}\n",
        "results/phase-3/request.json": "{}\n",
        "results/notes.md": "all is well\n",
    }
    for path, text in planted.items():
        quick.write(path, text)
    quick.commit("results")
    (quick.root / ".git/info/exclude").write_text("*.log\nresults/Q-098/\n")
    loose = {
        "results/Q-001/run.log": "ignored\n",
        "results/Q-098/result.json": "ignored\n",
        "results/Q-005/result.json": "planted before it runs\n",
    }
    for path, text in loose.items():
        quick.write(path, text)
    (quick.root / "results/Q-002/more").symlink_to("/tmp")
    quick.write("results/Q-002/.git/result.json", "in no repository\n")
    Path(os.fsdecode(os.fsencode(quick.root) + b"/results/Q-002/bad-\xff.md")).write_text("x\n")
    where = dict.fromkeys(planted, "HEAD has")
    others = ("results/Q-002/more", "results/Q-002/.git", r"results/Q-002/bad-\udcff.md")
    return where | dict.fromkeys((*loose, *others), "the work tree has")


def test_files_that_nothing_names_are_listed_i_33(eventful: Quick) -> None:
    planted = plant_everything(eventful)
    code, report = audit_report(eventful)
    assert code == 0
    assert {(item["severity"], item["code"]) for item in report["findings"]} == {
        ("warning", "results-unrecorded")
    }
    found = {item["path"]: item["message"] for item in report["findings"]}
    assert found.keys() == planted.keys()
    for path, location in planted.items():
        assert location in found[path]

    # In a clone there is what was committed.
    root = eventful.root.with_name("clone")
    eventful.git("clone", "-q", str(eventful.root), str(root))
    code, report = audit_report(eventful.at(root))
    committed_paths = {path for path, location in planted.items() if location == "HEAD has"}
    assert {item["path"] for item in report["findings"]} == committed_paths


def test_an_output_of_an_older_attempt_is_listed_i_33(
    at: Callable[[Place], Quick],
) -> None:
    """The newest receipt no longer names it."""
    quick = at(("VERIFIED", "Q-004", 2))
    older = quick.git("log", "--format=%H", "--", "results/Q-004/attempts").split()
    assert not older
    quick.write("results/Q-004/numbers-1.json", "[15]\n")
    code, report = audit_report(quick)
    assert code == 0
    assert [item["path"] for item in report["findings"]] == ["results/Q-004/numbers-1.json"]


#### I-34: an approved phase's plan and gates

PLAN = "prd/plan.json"


def planned(quick: Quick, edit_plan: Callable[[Any], object]) -> None:
    """Change the plan and commit it."""
    document = json.loads((quick.root / PLAN).read_text())
    edit_plan(document)
    change(quick, PLAN, json.dumps(document, indent=1))


def first(document: Any) -> Any:
    """Return the plan's first feature."""
    return document["phases"][0]["features"][0]


REWRITTEN = {
    "a prediction": (lambda plan: first(plan)["predictions"][0].update(value=15), "plan: Q-001"),
    "a prediction more": (
        lambda plan: first(plan)["predictions"].append(
            first(plan)["predictions"][0] | {"id": "late"}
        ),
        "plan: Q-001",
    ),
    "no predictions": (lambda plan: first(plan).pop("predictions"), "plan: Q-001"),
    "a gate": (lambda plan: first(plan).update(gate={"shell": "true"}), "plan: Q-001"),
    "an exit gate": (lambda plan: plan["phases"][0].pop("exit"), "plan: phase"),
    "its name": (lambda plan: plan["phases"][0].update(name="Guessing"), "plan: phase"),
    "an input": (lambda plan: plan["inputs"][0].update(path="exp"), "input: words"),
    "a feature more": (
        lambda plan: plan["phases"][0]["features"].append(
            first(plan) | {"id": "Q-009", "publish": {}}
        ),
        "plan: Q-009",
    ),
    "a feature less": (lambda plan: plan["phases"][0]["features"].pop(1), "plan: Q-002"),
}


def locked_changed(quick: Quick) -> list[Any]:
    """Return what the audit says of locks that differ; it must say nothing else."""
    code, report = audit_report(quick)
    assert code == 0, describe(report["findings"])
    for item in report["findings"]:
        assert (item["severity"], item["code"]) == ("warning", "locked-changed"), item
    return list(report["findings"])


@pytest.mark.parametrize(
    "name",
    mark_soak(REWRITTEN, short=["a prediction", "a gate", "an exit gate", "an input"]),
)
def test_a_plan_that_was_rewritten_after_its_approval_is_named_i_34(
    at: Callable[[Place], Quick], name: str
) -> None:
    quick = at(("APPROVED", None, 0))
    assert locked_changed(quick) == []
    edit_plan, component = REWRITTEN[name]
    planned(quick, edit_plan)
    findings = locked_changed(quick)
    assert findings, "it is not named"
    text = describe(findings)
    assert component in text
    assert "phase 1" in text.lower()


GATE = "gates/helper.py"


@pytest.mark.parametrize(
    ("path", "do"),
    [(GATE, edit), (GATE, delete), (GATE, link), ("settings.yaml", edit)],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_a_gate_that_was_rewritten_after_its_approval_is_named_i_34(
    at: Callable[[Place], Quick], path: str, do: Callable[[Path], None]
) -> None:
    quick = committed(at(("APPROVED", None, 0)), [path], do)
    assert path in describe(locked_changed(quick))


def change_later_phases(quick: Quick) -> None:
    """Change what an approved phase has nothing to do with."""

    def edit_plan(plan: Any) -> None:
        second = plan["phases"][1]
        second["features"][0].update(title="Count otherwise", predictions=[])
        later = {**second["features"][1], "id": "Q-010", "gate": {"pytest": "gates/test_later.py"}}
        plan["phases"].append({"id": 3, "name": "Later", "features": [later]})
        plan["inputs"].append({"name": "later", "path": "total"})
        plan["project"] = "Renamed"

    quick.write("gates/test_later.py", "def test_nothing():\n    assert False\n")
    quick.write("exp/mode", "wrong\n")
    quick.write("worker.sh", "exit 1\n")
    quick.git("add", "-A")
    planned(quick, edit_plan)
    quick.commit("what comes later")


def test_control_what_later_phases_change_is_no_finding_i_34(at: Callable[[Place], Quick]) -> None:
    quick = at(("APPROVED", None, 0))
    change_later_phases(quick)
    assert locked_changed(quick) == []


def test_control_an_open_phase_may_be_changed_i_34(at: Callable[[Place], Quick]) -> None:
    """It is not approved: the next run says what differs."""
    quick = at(("HALTED", None, 0))
    planned(quick, REWRITTEN["a prediction"][0])
    assert locked_changed(quick) == []


def test_control_after_a_relock_that_agreed_nothing_differs_i_34(eventful: Quick) -> None:
    run(eventful, "--next")
    decide(eventful, "approve", "2")
    assert locked_changed(eventful) == []
    planned(eventful, lambda plan: plan["phases"][1]["features"][1].update(title="Count 4"))
    assert "plan: Q-004" in describe(locked_changed(eventful))


def test_control_a_rejected_phase_is_approved_no_more_i_34(at: Callable[[Place], Quick]) -> None:
    quick = at(("APPROVED", None, 0))
    decide(quick, "reject", "1", "--reason", "predict better")
    planned(quick, REWRITTEN["a prediction"][0])
    assert locked_changed(quick) == []


def test_a_lock_is_the_file_that_its_entry_names(eventful: Quick) -> None:
    """The control of what this file changes: each path is named by its entry as it is."""
    text = eventful.progress
    for path in (*DOCUMENTS, *DECISIONS):
        digest = durable.sha256_file(eventful.root / path)
        assert f"sha256:{digest} {path}\n" in text
