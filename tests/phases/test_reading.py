"""show, why, log and doctor: what a person reads, and errors by their text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from story import Story
from test_startup import HEAVY, loaded
from test_views import told
from toy import Toy

from phases.errors import UsageError
from phases.git import checks
from phases.git.checks import repository_problems
from phases.views import doctor, sentences, why


def sentences_of(story: Story, feature: str) -> tuple[bool, str]:
    toy, ledger, _ = told(story)
    found = why.why(toy, ledger, feature)
    return found["runs"], " ".join(found["sentences"])


WHY: dict[str, tuple[Any, str, bool, str]] = {
    "not begun": (Story, "TOY-001", True, "nothing is recorded of it yet. It would run next: not run yet."),
    "later": (Story, "TOY-003", False, "phase 2 is not open yet; phase 1 is."),
    "after another": (Story, "TOY-002", True, "in the same run as TOY-001, after it"),
    "verified": (lambda: Story().lock().attempt("TOY-001"), "TOY-001", False, "`run --feature TOY-001 --force`"),
    "failed": (lambda: Story().lock().add("STARTED", 1, "TOY-001").add("FAILED", 1, "TOY-001", "reason no luck"),
               "TOY-001", True, "It said: reason no luck. It would run next: attempt 1 failed."),
    "spent": (lambda: Story().lock().attempt("TOY-001", "FAILED").attempt("TOY-001", "FAILED")
              .attempt("TOY-001", "FAILED"), "TOY-001", False, "`python -m phases approve 1 --waive TOY-001"),
    "behind a spent one": (lambda: Story().lock().attempt("TOY-001", "FAILED").attempt("TOY-001", "FAILED")
                           .attempt("TOY-001", "FAILED"), "TOY-002", False, "the attempts of TOY-001 are spent"),
    "waits": (lambda: Story().lock().attempt("TOY-001").attempt("TOY-002").halt(), "TOY-001", False,
              "phase 1 waits for a person's approval"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHY)
def test_why_says_why(name: str) -> None:
    make, feature, runs, said = WHY[name]
    assert sentences_of(make(), feature)[0] is runs
    assert said in sentences_of(make(), feature)[1]


def test_why_of_an_unknown_feature_names_those_that_there_are() -> None:
    toy, ledger, _ = told(Story())
    with pytest.raises(UsageError, match="no feature 'NOPE' in the PRD; it has TOY-001, TOY-002"):
        why.why(toy, ledger, "NOPE")


def test_every_kind_of_entry_has_a_sentence(halted: Toy) -> None:
    from phases.record.ledger import KINDS

    for kind in KINDS:
        place = (
            (1, "TOY-001")
            if kind in ("STARTED", "VERIFIED", "FAILED", "ERRORED", "WAIVED", "INTERRUPTED")
            else (1,)
        )
        entry = Story().add(kind, *place).ledger.entries[0]
        assert sentences.sentence(entry).endswith(".")
    shown = halted.run("log").stdout
    assert "TOY-001 Count number 1 was verified, attempt 1, after 1 s." in shown
    assert "predictions: 1 held, 1 missed" in shown
    assert "sha256:" not in shown
    raw = halted.run("log", "--raw").stdout
    assert raw.strip() in halted.progress
    assert halted.run("log", "--feature", "TOY-002", "--last", "1").stdout.startswith("0006 ")


def test_show_tells_everything_about_a_feature(halted: Toy) -> None:
    told_ = json.loads(halted.run("show", "TOY-001", "--json").stdout)
    assert (told_["state"], told_["coverage"], told_["problem"]) == ("verified", 1.0, None)
    assert [item["kind"] for item in told_["entries"]] == ["STARTED", "VERIFIED"]
    assert told_["measurements"]["mean"] == "2.8 ± 0.8 (n=5)"
    assert [item["outcome"] for item in told_["predictions"]] == ["HELD", "MISSED"]
    assert told_["files"]["results"] == "results/TOY-001"
    shown = halted.run("show", "TOY-001").stdout
    for word in (
        "3 checks passed; fails on 4 of 4 negative copies",
        "the total is 14",
        "results: results/TOY-001/",
    ):
        assert word in shown
    halted.write("results/TOY-001/result.json", '{"measurements": {"total": {"value": 15}}}')
    shown = halted.run("show", "TOY-001").stdout
    assert "DOES NOT HOLD" in shown
    assert "15" not in shown.split("DOES NOT HOLD")[1].split("entries")[0].replace(
        str(halted.root), ""
    )
    refused = halted.run("show", "NOPE", code=2)
    assert "no feature 'NOPE' in the PRD; it has TOY-001, TOY-002" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [["show", "TOY-001"], ["why", "TOY-001"], ["doctor"], ["log"]],
    ids=lambda words: str(words[0]),
)
def test_reading_loads_nothing_heavy(halted: Toy, tmp_path: Path, words: list[str]) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", *words)
    assert code == 0
    assert packages & (HEAVY | {"pydantic"}) == set()


def test_doctor_says_what_is_lost(halted: Toy) -> None:
    report = json.loads(halted.run("doctor", "--json").stdout)
    states = {item["name"]: item["state"] for item in report["checks"]}
    assert report["ok"] is True
    assert states["terminal"] == "lacks"  # this test has none
    assert states["repository"] == states["git"] == "ok"
    halted.git("checkout", "-q", "--detach")
    (halted.root / ".git/index.lock").touch()
    shown = halted.run("doctor", code=7).stdout
    assert "broken repository: HEAD is detached" in shown
    assert "index.lock is there" in shown
    assert "next: git switch -c my-branch" in shown
    assert "not fit to run: 2 of" in shown


def test_doctor_needs_neither_repository_nor_plan(tmp_path: Path, halted: Toy) -> None:
    shown = halted.run("--root", str(tmp_path), "doctor", code=7).stdout
    assert "not a git repository" in shown
    assert "run inside a git clone" in shown


MOUNTS = """21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:40 / /net/work rw,relatime shared:7 - nfs4 server:/work rw
23 21 0:41 / /net/work/local rw - xfs /dev/sdb1 rw
"""


def test_a_network_file_system_is_named() -> None:
    place = doctor._file_system(Path("/net/work/lab/.git"), MOUNTS)
    assert (place.state, place.met) == ("lacks", "nfs4")
    assert "may hold on one machine only" in place.lost
    assert doctor._file_system(Path("/net/work/local/.git"), MOUNTS).met == "xfs"
    assert doctor._file_system(Path("/home/me/.git"), MOUNTS).state == "ok"


def test_every_problem_of_a_repository_says_what_was_met_and_what_to_type() -> None:
    found = checks.RepositoryState(
        version=(2, 17, 1), git_dir=Path("/x/.git"), is_shallow=True, is_partial=True, branch=None, operation="bisect",
        locks=(Path("/x/.git/index.lock"),), identity_problem="no email", signing_problem="no key",
    )  # fmt: skip
    problems = repository_problems(found)
    assert [item.exit_code for item in problems] == [7, 7, 2, 7, 7, 7, 7, 7]
    assert all(item.hint for item in problems)
    assert len({str(item) for item in problems}) == 8
    assert "2.17.1, wanted 2.34" in str(problems[0])
