"""show, why, log and doctor: what they show, and errors by their text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from story import Story
from test_startup import HEAVY, loaded
from test_views import after
from toy import Toy

from phases.errors import UsageError
from phases.git.checks import RepositoryState, repository_problems
from phases.record.ledger import EntryKind
from phases.views import doctor
from phases.views.doctor import CheckState, MachineCheck, doctor_text
from phases.views.log import entry_sentence
from phases.views.why import explain_feature

#### why


def fail_once() -> Story:
    return Story().lock().add("STARTED", 1, "TOY-001").add("FAILED", 1, "TOY-001", "reason no luck")


def fail_three_times() -> Story:
    story = Story().lock()
    for _ in range(3):
        story.attempt("TOY-001", "FAILED")
    return story


def halt() -> Story:
    return Story().lock().attempt("TOY-001").attempt("TOY-002").halt()


def reset() -> Story:
    story = Story().lock().attempt("TOY-001", "FAILED")
    story.records.add("c" * 64)
    return story.decide("REJECTED", "c" * 64, 1, ["TOY-001"])


WHY: dict[str, tuple[Callable[[], Story], str, bool, str]] = {
    "not begun": (
        Story,
        "TOY-001",
        True,
        "nothing is recorded of it yet. It would run next: not run yet.",
    ),
    "later": (Story, "TOY-003", False, "phase 2 is not open yet; phase 1 is."),
    "after another": (Story, "TOY-002", True, "in the same run as TOY-001, after it"),
    "verified": (
        lambda: Story().lock().attempt("TOY-001"),
        "TOY-001",
        False,
        "`run --feature TOY-001 --force`",
    ),
    "failed": (
        fail_once,
        "TOY-001",
        True,
        "The entry says: reason no luck. It would run next: attempt 1 failed.",
    ),
    "reset": (reset, "TOY-001", True, "Since then it was reset."),
    "spent": (
        fail_three_times,
        "TOY-001",
        False,
        "`python -m phases approve 1 --waive TOY-001",
    ),
    "behind a spent one": (
        fail_three_times,
        "TOY-002",
        False,
        "the attempts of TOY-001 are spent",
    ),
    "waits": (halt, "TOY-001", False, "phase 1 waits for its approver"),
}


@pytest.mark.parametrize("name", WHY)
def test_why_says_why(name: str) -> None:
    make, feature, runs, text = WHY[name]
    explanation = explain_feature(*after(make()), feature)
    assert explanation.runs is runs
    assert text in " ".join(explanation.sentences)


def test_why_of_an_unknown_feature_names_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no feature 'NOPE' in the plan; it has TOY-001, TOY-002"):
        explain_feature(*after(Story()), "NOPE")


def test_why_json_is_the_contract(halted: Toy) -> None:
    document = json.loads(halted.call("why", "TOY-001", "--json").stdout)
    assert set(document) == {"id", "state", "runs", "stale", "sentences", "next"}
    assert (document["id"], document["state"], document["runs"]) == ("TOY-001", "verified", False)
    assert document["next"]["command"] == "python -m phases approve 1"
    assert halted.call("why", "TOY-001").stdout.endswith("next: python -m phases approve 1\n")


#### log


@pytest.mark.parametrize("kind", EntryKind)
def test_every_kind_of_entry_has_a_sentence(kind: EntryKind) -> None:
    sentence = entry_sentence(Story().add(kind, 1, "TOY-001").ledger.entries[0])
    assert sentence.endswith(".")
    assert "None" not in sentence
    assert entry_sentence(Story().add(kind, 1).ledger.entries[0]).endswith(".")


def test_the_log_of_a_real_run(halted: Toy) -> None:
    text = halted.call("log").stdout
    assert "TOY-001 Count number 1 was verified, attempt 1, after 1 s." in text
    assert "predictions: 1 held, 1 missed" in text
    assert "mutants 4/4 killed" in text
    assert "sha256:" not in text
    raw = halted.call("log", "--raw").stdout
    assert raw.strip() in halted.progress
    assert halted.call("log", "--feature", "TOY-002", "--last", "1").stdout.startswith("0006 ")


#### show


def test_show_has_everything_about_a_feature(halted: Toy) -> None:
    document = json.loads(halted.call("show", "TOY-001", "--json").stdout)
    assert set(document) == {
        "id", "title", "phase", "state", "attempts", "started", "interruptions", "needs",
        "overrides", "entries", "receipt", "coverage", "verdict", "predictions", "headline",
        "measurements", "files",
        "problem",
    }  # fmt: skip
    assert (document["state"], document["coverage"], document["problem"]) == ("verified", 1.0, None)
    assert [entry["kind"] for entry in document["entries"]] == ["STARTED", "VERIFIED"]
    assert document["measurements"]["mean"] == "2.8 ± 0.8 (n=5)"
    assert [item["outcome"] for item in document["predictions"]] == ["HELD", "MISSED"]
    assert set(document["predictions"][0]) == {"id", "claim", "outcome", "reason"}
    assert document["verdict"]["passed"] == 3
    assert (document["verdict"]["killed"], document["verdict"]["mutants"]) == (4, 4)
    assert document["files"]["results"] == "results/TOY-001"
    text = halted.call("show", "TOY-001").stdout
    for expected in (
        "checks: 3 passed; mutants 4/4 killed",
        "the total is 14",
        "results: results/TOY-001/",
    ):
        assert expected in text


def test_show_refuses_results_that_the_ledger_does_not_name(halted: Toy) -> None:
    halted.write("results/TOY-001/result.json", '{"measurements": {"total": {"value": 15}}}')
    text = halted.call("show", "TOY-001").stdout
    assert "INVALID: " in text
    problem = text.split("INVALID: ")[1].split("entries")[0].replace(str(halted.root), "")
    assert "result.json differs from what the receipt names" in problem
    assert "15" not in problem
    assert "measurements" not in text


def test_show_hides_a_verdict_that_the_ledger_does_not_name(halted: Toy) -> None:
    path = halted.root / "results/TOY-001/verdict.json"
    path.write_text(path.read_text().replace("the total is 14", "the total is 15"))
    document = json.loads(halted.call("show", "TOY-001", "--json").stdout)
    assert "verdict.json differs from the verdict that the ledger names" in document["problem"]
    assert (document["verdict"], document["predictions"]) == (None, [])


def test_show_of_an_unknown_feature_names_those_that_there_are(halted: Toy) -> None:
    stderr = halted.call("show", "NOPE", code=2).stderr
    assert "no feature 'NOPE' in the plan; it has TOY-001, TOY-002" in stderr
    assert "next: python -m phases status" in stderr


@pytest.mark.parametrize(
    "arguments", [["show", "TOY-001"], ["why", "TOY-001"], ["doctor"], ["log"]], ids=" ".join
)
def test_reading_loads_nothing_heavy(halted: Toy, tmp_path: Path, arguments: list[str]) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", *arguments)
    assert code == 0
    assert packages & HEAVY == set()


#### doctor


def test_doctor_says_what_does_not_work(halted: Toy) -> None:
    report = json.loads(halted.run("doctor", "--json").stdout)
    assert set(report["checks"][0]) == {"name", "state", "actual", "impact", "hint"}
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert report["ok"] is True
    assert states["terminal"] == "warning"  # this test has none
    assert states["repository"] == states["git"] == "ok"
    assert halted.run("doctor").stdout.endswith("\nready\n")
    halted.git("checkout", "-q", "--detach")
    (halted.root / ".git/index.lock").touch()
    text = halted.run("doctor", code=7).stdout
    assert "error   repository: HEAD is detached" in text
    assert "index.lock exists" in text
    assert "next: `git switch main`" in text
    assert text.endswith("\nnot ready: 2 errors\n")


def test_doctor_needs_neither_repository_nor_plan(tmp_path: Path, halted: Toy) -> None:
    text = halted.run("--root", str(tmp_path), "doctor", code=7).stdout
    assert "not a git repository" in text
    assert "run inside a git clone" in text
    _, packages = loaded(halted, tmp_path / "loaded", "doctor")
    assert "pydantic" not in packages


def test_warnings_do_not_make_a_machine_unready() -> None:
    warning = MachineCheck("terminal", CheckState.WARNING, "none", "no decisions", "find one")
    assert doctor_text([warning]).splitlines() == [
        "warning terminal: none",
        "        impact: no decisions",
        "        next: find one",
        "ready",
    ]
    error = MachineCheck("git", CheckState.ERROR, "not found")
    assert doctor_text([warning, error]).splitlines()[-1] == "not ready: 1 error"


MOUNTS = """21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:40 / /net/work rw,relatime shared:7 - nfs4 server:/work rw
23 21 0:41 / /net/work/local rw - xfs /dev/sdb1 rw
"""


def test_a_network_file_system_is_named() -> None:
    check = doctor._check_file_system(Path("/net/work/lab/.git"), MOUNTS)
    assert (check.state, check.actual) == ("warning", "nfs4")
    assert "may work on one machine only" in check.impact
    assert doctor._check_file_system(Path("/net/work/local/.git"), MOUNTS).actual == "xfs"
    assert doctor._check_file_system(Path("/home/me/.git"), MOUNTS).state == "ok"


def test_every_problem_of_a_repository_has_a_message_and_a_hint() -> None:
    state = RepositoryState(
        version=(2, 17, 1),
        git_dir=Path("/x/.git"),
        is_shallow=True,
        is_partial=True,
        branch=None,
        operation="bisect",
        locks=(Path("/x/.git/index.lock"),),
        identity_problem="no email",
        signing_problem="no key",
    )
    problems = repository_problems(state)
    assert [problem.exit_code for problem in problems] == [7, 7, 2, 7, 7, 7, 7, 7]
    assert all(problem.hint for problem in problems)
    assert len({str(problem) for problem in problems}) == 8
    assert "2.17.1" in str(problems[0])
    assert "2.34" in str(problems[0])
