"""What was reviewed is what is approved, by bytes; what is beside it is named before the question.

Git's index, its flags and its filters have no say.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal_user import at_terminal
from toy import ROOT

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from quick import Quick, feature, plan

from tests.soak import mark_soak

RESULT = "results/Q-001/result.json"
NOTE = "docs/note.md"
WORKER = """
printf '# Counted\\n' > "$PHASES_OUT/note.md"
mkdir -p "$PHASES_OUT/figures"
printf 'drawn\\n' > "$PHASES_OUT/figures/a.png"
"""
EXIT_GATE = "grep -Eq '\"value\": ?14[,}]' Q-001/result.json"


def reviewed_plan() -> dict[str, Any]:
    """Return a plan of two phases; the first feature publishes a note."""
    document = plan(phases=2)
    first = feature(
        1,
        command="sh noted.sh",
        outputs=["result.json", "artifacts/**", "note.md", "figures/*.png"],
        publish={"note.md": NOTE},
        gate={"pytest": "gates/test_all.py"},
    )
    document["phases"][0]["features"] = [first]
    document["phases"][0]["exit"] = [{"shell": EXIT_GATE}]
    return document


GATE = """
import json, os, pathlib

OUT = pathlib.Path(os.environ["PHASES_OUT"])

def test_total():
    result = json.loads((OUT / "result.json").read_text())
    numbers = json.loads((OUT / "artifacts" / "numbers.json").read_text())
    assert numbers == [14]
    assert result["measurements"]["total"] == {"value": 14, "unit": "", "exact": True}

def test_note():
    assert (OUT / "note.md").read_text() == "# Counted\\n"
    assert (OUT / "figures" / "a.png").read_text() == "drawn\\n"
"""


@pytest.fixture(scope="module")
def _reviewed(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = Quick(tmp_path_factory.mktemp("reviewed") / "quick", reviewed_plan())
    quick.write("noted.sh", f"{WORKER}\n. ./worker.sh\n")
    quick.write("gates/test_all.py", GATE)
    quick.write("constraints.txt", "pytest==9\n# 4\n")
    quick.commit("a feature that publishes")
    quick.run("run", "--next")
    return quick


@pytest.fixture
def reviewed(_reviewed: Quick, tmp_path: Path) -> Quick:
    """Return a project whose first phase waits for its approval."""
    return _reviewed.copy(tmp_path / "quick")


def doctor(quick: Quick, path: str) -> None:
    """Write other bytes of the same length, as a careful forger does."""
    data = (quick.root / path).read_bytes()
    changed = data.replace(b"4", b"5") if b"4" in data else data.swapcase()
    assert changed != data
    (quick.root / path).write_bytes(changed)


def hide_by_flags(quick: Quick, path: str) -> None:
    quick.git("update-index", "--assume-unchanged", "--skip-worktree", path)
    doctor(quick, path)
    assert quick.git("status", "--porcelain") == ""


def hide_by_filter(quick: Quick, path: str) -> None:
    """Let git clean the doctored bytes back to what it stores."""
    stored = quick.root.with_name("stored")
    stored.write_bytes((quick.root / path).read_bytes())
    quick.git("config", "filter.hide.clean", f"cat {stored}")
    quick.git("config", "filter.hide.smudge", "cat")
    info = quick.root / ".git/info/attributes"
    info.parent.mkdir(exist_ok=True)
    info.write_text(f"{path} filter=hide\n")
    doctor(quick, path)
    assert quick.git("status", "--porcelain", "--", path) == ""


def change_in_a_commit_only(quick: Quick, path: str) -> None:
    """Let HEAD have other bytes than the work tree."""
    data = (quick.root / path).read_bytes()
    doctor(quick, path)
    quick.git("commit", "-q", "-m", "better", "--", path)
    (quick.root / path).write_bytes(data)


def delete_in_a_commit_only(quick: Quick, path: str) -> None:
    """Let HEAD lack what the work tree still has."""
    quick.git("rm", "-q", "--cached", path)
    quick.git("commit", "-q", "-m", "not needed")


def link_elsewhere(quick: Quick, path: str) -> None:
    """Put a link to the same bytes in the place of a file, out of git's sight."""
    quick.git("update-index", "--assume-unchanged", path)
    target = quick.root.with_name("elsewhere")
    (quick.root / path).rename(target)
    (quick.root / path).symlink_to(target)


BOUND = {
    RESULT: RESULT,
    "results/Q-001/receipt.json": "results/Q-001/receipt.json",
    "results/Q-001/verdict.json": "results/Q-001/verdict.json",
    "results/Q-001/figures/a.png": "results/Q-001/figures/a.png",
    "results/phase-1/request.json": "results/phase-1/request.json",
    "results/phase-1/lock.json": "results/phase-1/lock.json",
    "results/phase-1/verdict.json": "results/phase-1/verdict.json",
    "gates/test_all.py": "gates/test_all.py",
    "constraints.txt": "constraints.txt",
    "prd/plan.json": "plan: phase",
}
"""What an approval binds -> what the refusal names."""
HIDDEN = {
    "flags": hide_by_flags,
    "filter": hide_by_filter,
    "commit": change_in_a_commit_only,
    "deleted": delete_in_a_commit_only,
}
CASES = [(path, way) for path in BOUND for way in HIDDEN]
CASES.remove(("prd/plan.json", "deleted"))  # without a plan there is no phase to approve
SHORT = [
    (RESULT, "flags"),
    (RESULT, "filter"),
    ("results/phase-1/request.json", "commit"),
    ("results/phase-1/lock.json", "flags"),
    ("results/phase-1/verdict.json", "deleted"),
    ("gates/test_all.py", "filter"),
    ("prd/plan.json", "flags"),
]


@pytest.mark.parametrize(("path", "way"), mark_soak(CASES, short=SHORT))
def test_what_was_reviewed_is_compared_by_bytes_i_30(reviewed: Quick, path: str, way: str) -> None:
    # 1. It is refused by name. There is no terminal here: a command that asks exits 4.
    HIDDEN[way](reviewed, path)
    before = reviewed.record_contents()
    refusal = reviewed.call("approve", "1", code=3).stderr
    assert re.search(
        rf"differs from .*{re.escape(BOUND[path])}|{path} is not the plan lock", refusal
    )
    assert reviewed.record_contents() == before

    # 2. The hint restores it, in the work tree and in HEAD.
    hint = re.search(r"next: `([^`]+)`", refusal)
    assert hint, refusal
    subprocess.run(hint[1], shell=True, cwd=reviewed.root, check=True, capture_output=True)
    if not hint[1].startswith("git diff"):  # of a plan it shows what a human has to restore
        reviewed.call("approve", "1", code=4)


def test_a_link_to_the_same_bytes_is_no_result_i_30(reviewed: Quick) -> None:
    link_elsewhere(reviewed, RESULT)
    assert RESULT in reviewed.call("approve", "1", code=3).stderr


def test_control_what_was_not_touched_is_asked_about(reviewed: Quick) -> None:
    assert "no controlling terminal" in reviewed.call("approve", "1", code=4).stderr


def test_the_runner_in_the_repository_is_compared_by_bytes_i_30(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "phases", quick.root / "phases", ignore=ignored)
    quick.write(".gitignore", ".phases/\n__pycache__/\n")
    quick.commit("a runner of its own")
    own = {"PYTHONPATH": str(quick.root)}
    quick.run("run", "--next", env=own)
    quick.run("approve", "1", code=4, env=own)

    # 1. Changed behind the index's back.
    module = "phases/views/doctor.py"
    original = (quick.root / module).read_bytes()
    quick.git("update-index", "--assume-unchanged", module)
    (quick.root / module).write_bytes(original + b"# another\n")
    assert module in quick.run("approve", "1", code=3, env=own).stderr

    # 2. Added by a commit: no file of the runner is a mere addition.
    (quick.root / module).write_bytes(original)
    quick.write("phases/views/more.py", "")
    quick.commit("more")
    refusal = quick.run("approve", "1", code=3, env=own).stderr
    assert "phases/views/more.py" in refusal
    assert "git rm -qf -- phases/views/more.py" in refusal


#### what is beside it


def read_question(quick: Quick) -> str:
    """Return what the approver reads before the question."""
    code, screen = at_terminal(quick.root, "approve", "1", answer=lambda _: "")
    assert code == 4, screen
    return screen[: screen.index("type exactly")].replace("\r\n", "\n")


def unrecorded(quick: Quick) -> list[str]:
    """Return the paths that the audit lists as unrecorded."""
    report = json.loads(quick.call("audit", "--json").stdout)
    assert report["ok"]
    findings = [item for item in report["findings"] if item["code"] == "results-unrecorded"]
    assert {item["severity"] for item in findings} <= {"warning"}
    return [item["path"] for item in findings]


def test_unrecorded_files_are_named_before_the_question_i_31(reviewed: Quick) -> None:
    # 1. A report and a figure that nobody made; one is ignored, one committed since.
    (reviewed.root / ".git/info/exclude").write_text("*.log\n")
    reviewed.write("results/Q-001/report.md", "much better\n")
    reviewed.write("results/Q-001/figures/b.png", "painted\n")
    reviewed.commit("a figure")
    reviewed.git("rm", "-q", "--cached", "results/Q-001/report.md")
    reviewed.git("commit", "-q", "-m", "not the report")
    reviewed.write("results/phase-1/run.log", "all is well\n")

    # 2. A link and a special file.
    (reviewed.root / "results/Q-001/more").symlink_to("/tmp")
    os.mkfifo(reviewed.root / "results/Q-001/pipe")

    # 3. All are named, none is offered for reading, and the audit lists them.
    question = read_question(reviewed)
    assert "in no record" in question
    for line in (
        "results/Q-001/figures/b.png (committed)",
        "results/Q-001/more (not committed)",
        "results/Q-001/pipe (not committed)",
        "results/Q-001/report.md (not committed)",
        "results/phase-1/run.log (not committed)",
    ):
        assert f"  {line}\n" in question
    assert "read results/Q-001/note.md" in question
    assert "read results/Q-001/report.md" not in question
    assert "see 1 figure" in question
    assert len(unrecorded(reviewed)) == 5


def test_control_an_honest_project_has_no_unrecorded_file(reviewed: Quick) -> None:
    assert unrecorded(reviewed) == []
    assert "in no record" not in read_question(reviewed)


def test_unrecorded_files_elsewhere_are_only_findings_i_31(reviewed: Quick) -> None:
    reviewed.write("results/Q-099/result.json", "{}\n")
    reviewed.write("results/Q-002/result.json", "{}\n")
    assert unrecorded(reviewed) == ["results/Q-002/result.json", "results/Q-099/result.json"]
    assert "in no record" not in read_question(reviewed)


def test_a_flood_of_unrecorded_files_is_counted(reviewed: Quick) -> None:
    for number in range(30):
        reviewed.write(f"results/Q-001/extra/{number:02d}.txt", "x\n")
    question = read_question(reviewed)
    assert "  … and 10 more: python -m phases audit lists them\n" in question
    assert len(unrecorded(reviewed)) == 30


def test_names_that_are_not_text_are_shown_escaped(reviewed: Quick) -> None:
    folder = os.fsencode(reviewed.root / "results/Q-001")
    for name in (b"a\nTOY: verified", b"\xff.md", b"\x1b[2J"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"x")
    question = read_question(reviewed)
    assert "results/Q-001/a\\x0aTOY: verified (not committed)" in question
    assert "\x1b[2J" not in question
    assert len(unrecorded(reviewed)) == 3


def test_an_unrecorded_file_that_appears_at_the_question_is_not_approved(reviewed: Quick) -> None:
    def add_then_agree(phrase: str) -> str:
        reviewed.write("results/Q-001/report.md", "much better\n")
        return phrase

    code, screen = at_terminal(reviewed.root, "approve", "1", answer=add_then_agree)
    assert code == 3, screen
    assert "results/Q-001/report.md (not committed)" in screen


def test_an_approval_beside_unrecorded_files_works_and_records_none(reviewed: Quick) -> None:
    reviewed.write("results/Q-001/report.md", "my notes\n")
    code, screen = at_terminal(reviewed.root, "approve", "1", answer=lambda phrase: phrase)
    assert code == 0, screen
    assert "report.md" not in reviewed.git("show", "--name-only", "--format=", "HEAD")
    assert unrecorded(reviewed) == ["results/Q-001/report.md"]


def edit_note(quick: Quick) -> None:
    doctor(quick, NOTE)


def commit_note(quick: Quick) -> None:
    edit_note(quick)
    quick.commit("a better note")


def hide_note(quick: Quick) -> None:
    hide_by_flags(quick, NOTE)


def remove_note(quick: Quick) -> None:
    (quick.root / NOTE).unlink()


EDITED: dict[str, tuple[Callable[[Quick], None], tuple[str, ...]]] = {
    "edited": (edit_note, ("the work tree",)),
    "hidden": (hide_note, ("the work tree",)),
    "committed": (commit_note, ("HEAD", "the work tree")),
    "removed": (remove_note, ("the work tree",)),
}


@pytest.mark.parametrize("name", mark_soak(EDITED, short=("hidden", "committed")))
def test_edited_published_copies_are_named_before_the_question_i_30(
    reviewed: Quick, name: str
) -> None:
    edit, sources = EDITED[name]
    edit(reviewed)
    question = read_question(reviewed)
    for source in ("HEAD", "the work tree"):
        line = f"  {NOTE} in {source}, of Q-001 note.md\n"
        assert (line in question) == (source in sources)


#### what the audit calls false


def test_approve_refuses_what_the_audit_calls_false_i_55(reviewed: Quick) -> None:
    # Nothing that the phase binds: a stored artifact.
    artifact = next(path for path in (reviewed.root / ".phases/artifacts").rglob("*")
                    if path.is_file())  # fmt: skip
    artifact.chmod(0o644)
    artifact.write_text("[15]\n")
    report = json.loads(reviewed.call("audit", "--json", code=3).stdout)
    assert [item["code"] for item in report["findings"]] == ["artifact-changed"]
    refusal = reviewed.call("approve", "1", code=3).stderr
    assert "the audit finds 1 error; nothing was asked" in refusal
    assert "artifact-changed: " in refusal
    assert "next: python -m phases audit" in refusal
