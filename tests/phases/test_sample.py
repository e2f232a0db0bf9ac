"""Sample runs: a script approves, every record and view says so, and nothing turns one real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy, toy_plan, with_shell_gates

from phases.record.sample import SAMPLE_ASSURANCE

LINE = "assurance: scripted (sample run, approved by no human)"
VIEWS = (
    ("status",),
    ("plan",),
    ("log",),
    ("log", "--raw"),
    ("show", "TOY-001"),
    ("why", "TOY-001"),
)


def sample_toy(root: Path, *, sample: bool = True) -> Toy:
    """Return a toy repository of two phases, the first of which waits."""
    plan = with_shell_gates(toy_plan(phases=2, features=1))
    toy = Toy(root, plan | {"sample": sample})
    toy.run("run", "--next")
    return toy


@pytest.fixture(scope="module")
def _waiting(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return sample_toy(tmp_path_factory.mktemp("sample") / "toy")


@pytest.fixture
def waiting(_waiting: Toy, tmp_path: Path) -> Toy:
    return _waiting.copy(tmp_path / "toy")


@pytest.fixture(scope="module")
def _approved(_waiting: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = _waiting.copy(tmp_path_factory.mktemp("approved") / "toy")
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert screen.count(LINE) == 2  # first of all, and in the summary
    return toy


@pytest.fixture
def approved(_approved: Toy, tmp_path: Path) -> Toy:
    return _approved.copy(tmp_path / "toy")


def set_sample(toy: Toy, *, sample: bool) -> None:
    plan = json.loads((toy.root / "prd/plan.json").read_text())
    toy.write("prd/plan.json", json.dumps(plan | {"sample": sample}, indent=1))
    toy.commit("the plan changes")


#### what says so


def test_genesis_and_locks_record_it(waiting: Toy) -> None:
    assert SAMPLE_ASSURANCE == LINE
    progress = (waiting.root / "progress.txt").read_text()
    genesis, _, rest = progress.partition("· LOCKED")
    assert f"\n- {LINE}\n" in genesis
    assert "\n- approval scripted\n" in rest


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_every_view_begins_with_it(approved: Toy, view: tuple[str, ...]) -> None:
    assert approved.call(*view).stdout.startswith(f"{LINE}\n")
    if view[0] != "log":
        document = json.loads(approved.call(*view, "--json").stdout)
        assert document["assurance"] == LINE.removeprefix("assurance: ")


def test_runs_and_audits_begin_with_it(approved: Toy) -> None:
    assert approved.run("run", "--next").stderr.startswith(f"{LINE}\n")
    assert approved.call("verify", "TOY-001").stderr.startswith(f"{LINE}\n")
    assert approved.call("audit").stdout.startswith(f"{LINE}\n")
    report = json.loads(approved.call("audit", "--json").stdout)
    assert report["ok"]
    assert report["assurance"] == LINE.removeprefix("assurance: ")


def test_a_view_says_it_before_the_first_entry(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy", toy_plan() | {"sample": True})
    assert toy.call("status").stdout.startswith(f"{LINE}\n")


def test_a_decision_of_a_script_is_recorded_as_one(approved: Toy) -> None:
    record = json.loads((approved.root / "prd/approvals/phase-1.1.json").read_text())
    assert record["predicate"]["assurance"] == "scripted"
    assert "nothing about a human" in record["predicate"]["notProved"]
    progress = (approved.root / "progress.txt").read_text()
    assert ", assurance scripted\n" in progress
    assert "assurance presence" not in progress
    assert approved.git("log", "-1", "--format=%s").endswith("approved by a script (sample run)")
    assert "was approved by a script, by no human (" in approved.call("log").stdout


def test_a_plan_that_is_no_sample_never_says_it(tmp_path: Path) -> None:
    toy = sample_toy(tmp_path / "toy", sample=False)
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    said = screen + (toy.root / "progress.txt").read_text()
    for view in (*VIEWS, ("audit",)):
        said += toy.call(*view).stdout
    assert "scripted" not in said
    assert "assurance presence" in said


def test_a_script_still_needs_the_words_at_a_terminal(waiting: Toy) -> None:
    waiting.call("approve", "1", code=4)
    waiting.run("approve", "1", code=4, stdin="Counting 1\n")
    assert "APPROVED" not in (waiting.root / "progress.txt").read_text()


#### nothing turns one into the other


@pytest.mark.parametrize("sample", [True, False])
def test_the_plan_cannot_change_it_any_more(tmp_path: Path, *, sample: bool) -> None:
    toy = sample_toy(tmp_path / "toy", sample=sample)
    set_sample(toy, sample=not sample)
    before = toy.record_contents()
    word, expected = str(not sample).lower(), str(sample).lower()
    message = f"the plan says sample: {word}; expected {expected}, as the record began"
    status = toy.call("status")
    assert message in status.stderr
    assert status.stdout.startswith(LINE) == sample
    refused = toy.run("run", "--next", code=3)
    assert message in refused.stderr
    assert "take the plan's `sample` back" in refused.stderr
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert (code, message in screen.replace("\r\n", "\n")) == (3, True)
    report = json.loads(toy.call("audit", "--json", code=3).stdout)
    assert "sample-contradicts" in {finding["code"] for finding in report["findings"]}
    assert toy.record_contents() == before

    set_sample(toy, sample=sample)
    toy.assert_audit_is_clean()
    toy.run("run", "--next", code=4)


def test_a_lock_that_asks_for_another_approval_is_found(waiting: Toy) -> None:
    from phases.plan.load import load_plan
    from phases.record.ledger import parse_ledger
    from phases.record.sample import sample_problems

    data = (waiting.root / "progress.txt").read_bytes()
    plan = load_plan(waiting.root)
    assert list(sample_problems(plan, parse_ledger(data))) == []
    forged = parse_ledger(data.replace(b"- approval scripted\n", b"- approval presence\n"))
    (problem,) = sample_problems(plan, forged)
    assert (problem.code, problem.entry) == ("sample-contradicts", 2)
