"""I-35: what locks, halts and decisions state is recomputed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from forged_edits import (
    APPROVED,
    COMMAND,
    ENTRY,
    EXIT_FAILED,
    HALTED,
    HALTED_WAIVED,
    OTHER,
    REJECTED,
    RELOCKED,
    SURVIVED,
    VERDICT,
    WAIVED,
    case,
    check,
    elsewhere,
    extra_line,
    in_document,
    judged,
    line,
    lines_follow,
    mutant,
    names_of,
    other_digest,
    predicate,
    rare,
    title,
    verdict,
    without_line,
    without_mutant,
)
from forged_record import LastRecord, Place
from quick import Quick

#### locks, halts, decisions


def locked_on_nothing(record: LastRecord) -> None:
    """Have LOCKED name a commit that has no file at all."""
    git, draft = record.toy.git, record.draft("LOCKED")
    tree = git("hash-object", "-t", "tree", "-w", "/dev/null")
    draft.lines[draft.index("head ")] = f"head {git('commit-tree', tree, '-m', 'nothing')}"


LOCK = "lock-contradicts"
REQUEST = "request-contradicts"
DECISION = f"approval-invalid|{ENTRY}"
PHASES = {
    "GENESIS: another project": case(
        COMMAND,
        f"{ENTRY}|genesis-foreign",
        line("project Eventful", "project Uneventful", "GENESIS"),
    ),
    "GENESIS: another history": case(
        COMMAND,
        "genesis-foreign",
        lambda record: record.draft("GENESIS").lines.__setitem__(1, "root " + "ab" * 20),
    ),
    "GENESIS: one line more": rare(COMMAND, ENTRY, extra_line("approved by me", kind="GENESIS")),
    "LOCKED: it asks for a signature": case(
        COMMAND, f"{LOCK}|approval-lowered", line("approval presence", "approval signed", "LOCKED")
    ),
    "LOCKED: another approver": case(
        COMMAND, LOCK, extra_line("approver another-user", "head ", "LOCKED")
    ),
    "LOCKED: nothing of approvals": rare(COMMAND, LOCK, without_line("approval ", "LOCKED")),
    "LOCKED: a line more": rare(
        COMMAND, f"{LOCK}|{ENTRY}", extra_line("reset: Q-001", kind="LOCKED")
    ),
    "LOCKED: another part": case(
        COMMAND, LOCK, in_document("lock", "components", "plan: Q-001", to=OTHER)
    ),
    "LOCKED: another gate": case(
        COMMAND, LOCK, in_document("lock", "components", "gates/test_small.py", to=OTHER)
    ),
    "LOCKED: an invented part": rare(
        COMMAND, LOCK, in_document("lock", "components", "gates/more.py", to=OTHER)
    ),
    "LOCKED: a part less": case(
        COMMAND, LOCK, lambda record: record.document("lock")["components"].pop("settings.yaml")
    ),
    "LOCKED: another phase": case(COMMAND, LOCK, in_document("lock", "phase", to=2)),
    "LOCKED: another digest": case(
        COMMAND, "lock-changed|named-file-changed", other_digest("lock", "LOCKED")
    ),
    "LOCKED: its lock is not committed": case(
        COMMAND,
        "lock-changed|named-file-changed",
        lambda record: record.remove(record.path("lock")),
    ),
    "LOCKED: a commit without a plan": case(COMMAND, "plan-missing", locked_on_nothing),
    "LOCKED: no lock": case(COMMAND, ENTRY, without_line("lock ", "LOCKED")),
    "HALTED: another digest": case(
        HALTED, "named-file-changed|request-contradicts", other_digest("request")
    ),
    "HALTED: more checks": case(HALTED, ENTRY, line("1 passed", "9 passed")),
    "HALTED: more mutants": rare(HALTED, ENTRY, line("mutants 3/3", "mutants 9/9")),
    "HALTED: no gate": rare(HALTED, ENTRY, without_line("gate ")),
    "HALTED: another gate": case(HALTED, ENTRY, line("Q-001/result.json &&", "Q-001/x.json &&")),
    "HALTED: a failed check": rare(HALTED, ENTRY, extra_line("failing x: no", "verdict ")),
    "HALTED: other counts": case(
        HALTED, f"{ENTRY}|halt-contradicts", line("2 verified", "1 verified, 1 waived")
    ),
    "HALTED: another next command": case(HALTED, ENTRY, line("approve 1", "approve 2")),
    "HALTED: no next command": rare(HALTED, ENTRY, without_line("next: ")),
    "HALTED: no commit": rare(HALTED, f"{ENTRY}|{REQUEST}", without_line("head ")),
    "HALTED: another commit": case(
        HALTED,
        f"{ENTRY}|{REQUEST}",
        lambda record: record.last.replace(
            record.last.lines[record.last.index("head ")],
            "head " + record.toy.git("rev-parse", "HEAD~3"),
        ),
    ),
    "HALTED: a line more": rare(HALTED, ENTRY, extra_line("measured total 14")),
    "HALTED: no verdict": case(HALTED, f"{ENTRY}|{REQUEST}", without_line("verdict ")),
    "HALTED: another request file": case(
        HALTED, f"{ENTRY}|{REQUEST}", elsewhere("request", "results/phase-1/r.json")
    ),
    "request: another title": case(
        HALTED, REQUEST, in_document("request", "predicate", "features", 0, "title", to="Count all")
    ),
    "request: fewer attempts": case(
        HALTED, REQUEST, in_document("request", "predicate", "features", 1, "attempts", to=1)
    ),
    "request: better coverage": case(
        HALTED,
        REQUEST,
        in_document("request", "predicate", "features", 0, "measurementCoverage", to=[2, 0, 2]),
    ),
    "request: another state": rare(
        HALTED_WAIVED,
        REQUEST,
        in_document("request", "predicate", "features", 0, "state", to="verified"),
    ),
    "request: another receipt": rare(
        HALTED, REQUEST, in_document("request", "predicate", "features", 0, "receipt", to=OTHER)
    ),
    "request: a feature less": rare(
        HALTED,
        REQUEST,
        lambda record: record.document("request")["predicate"]["features"].pop(),
    ),
    "request: another subject": case(
        HALTED, REQUEST, in_document("request", "subject", 0, "digest", to={"sha256": OTHER})
    ),
    "request: no subject": rare(HALTED, REQUEST, in_document("request", "subject", to=[])),
    "request: another phase": rare(
        HALTED, REQUEST, in_document("request", "predicate", "phase", "id", to=2)
    ),
    "request: another name": case(
        HALTED, REQUEST, in_document("request", "predicate", "phase", "name", to="Guessing")
    ),
    "request: another attempt": case(
        HALTED, REQUEST, in_document("request", "predicate", "attempt", to=2)
    ),
    "request: another lock": case(
        HALTED, REQUEST, in_document("request", "predicate", "lock", to={"sha256": OTHER})
    ),
    "request: another gate": case(
        HALTED,
        REQUEST,
        in_document("request", "predicate", "gates", 0, "digest", to={"sha256": OTHER}),
    ),
    "request: a gate less": rare(
        HALTED, REQUEST, lambda record: record.document("request")["predicate"]["gates"].pop()
    ),
    "request: another exit verdict": case(
        HALTED, REQUEST, in_document("request", "predicate", "exitVerdict", to={"sha256": OTHER})
    ),
    "request: no exit verdict": rare(
        HALTED, REQUEST, in_document("request", "predicate", "exitVerdict", to=None)
    ),
    "request: another transaction": case(
        HALTED,
        f"{REQUEST}|commit-trailers",
        in_document("request", "predicate", "txn", to="ab" * 8),
    ),
    "request: an older commit": case(
        HALTED,
        REQUEST,
        lambda record: record.document("request")["predicate"]["commit"].update(
            gitCommit=record.toy.git("rev-parse", "HEAD~3")
        ),
        lambda record: record.last.lines.__setitem__(
            record.last.index("head "), "head " + record.toy.git("rev-parse", "HEAD~3")
        ),
    ),
    "exit gates: another phase": rare(HALTED, VERDICT, in_document("verdict", "phase", to=2)),
    "exit gates: a mutant survived": case(
        HALTED, f"{VERDICT}|{REQUEST}", mutant("measurements", "Q-001", **SURVIVED), lines_follow
    ),
    "exit gates: no mutant of a feature": case(
        HALTED, VERDICT, without_mutant("measurements", "Q-001"), lines_follow
    ),
    "exit gates: no empty mutant": rare(HALTED, VERDICT, without_mutant("empty", ""), lines_follow),
    "exit gates: another gate": case(
        HALTED, VERDICT, verdict("predicate", "configuration", 0, "digest", to={"sha256": OTHER})
    ),
    "exit gates: other outputs": case(
        HALTED, f"{VERDICT}|verdict-foreign", verdict("subject", 0, "digest", to={"sha256": OTHER})
    ),
    "exit gates: an output less": rare(
        HALTED, f"{VERDICT}|verdict-foreign", lambda record: record.verdict["subject"].pop()
    ),
    "exit gates: no verdict": case(
        HALTED, f"{VERDICT}|{REQUEST}|{ENTRY}", in_document("verdict", "verdicts", to=[])
    ),
    "exit gates: two verdicts of one": rare(
        HALTED,
        f"{VERDICT}|{REQUEST}|{ENTRY}",
        lambda record: record.document("verdict")["verdicts"].append(record.verdict),
    ),
    "exit gates: exempt": case(
        HALTED,
        VERDICT,
        judged("exempt", to=[{"files": "*", "reason": "why not"}]),
        lines_follow,
    ),
    "exit gates: exit code 1": rare(HALTED, VERDICT, judged("exitCode", to=1)),
    "exit gates: state failed": case(HALTED, f"{VERDICT}|{REQUEST}", judged("state", to="failed")),
    "exit gates failed: nothing failed": case(
        EXIT_FAILED, f"{VERDICT}|{ENTRY}", predicate("result", "PASSED")
    ),
    "exit gates failed: more checks": case(EXIT_FAILED, ENTRY, line("0 passed", "9 passed")),
    "exit gates failed: another reason": rare(
        EXIT_FAILED, ENTRY, line("reason exit 1", "reason bad luck")
    ),
    "exit gates failed: no failed check": case(EXIT_FAILED, ENTRY, without_line("failing ")),
    "exit gates failed: another gate": rare(
        EXIT_FAILED,
        VERDICT,
        verdict("predicate", "configuration", 0, "digest", to={"sha256": OTHER}),
    ),
    "APPROVED: by another user": case(APPROVED, DECISION, line("by ", "by nobody but ")),
    "APPROVED: another assurance": case(
        APPROVED, DECISION, line("assurance presence", "assurance signed")
    ),
    "APPROVED: another checkpoint": case(
        APPROVED,
        DECISION,
        lambda record: record.last.lines.__setitem__(
            record.last.index("checkpoint "), "checkpoint " + record.toy.git("rev-parse", "HEAD~2")
        ),
    ),
    "APPROVED: another commit": case(
        APPROVED,
        DECISION,
        lambda record: record.last.lines.__setitem__(
            record.last.index("head "), "head " + record.toy.git("rev-parse", "HEAD~4")
        ),
    ),
    "APPROVED: another request": rare(
        APPROVED,
        DECISION,
        lambda record: record.last.lines.__setitem__(
            record.last.index("request "), f"request sha256:{OTHER} results/phase-1/request.json"
        ),
    ),
    "APPROVED: a reason": case(APPROVED, DECISION, extra_line("reason excellent work", "request ")),
    "APPROVED: a line more": rare(APPROVED, DECISION, extra_line("measured total 14")),
    "APPROVED: no name": rare(APPROVED, DECISION, without_line("by ")),
    "record: by another user": case(
        APPROVED, DECISION, in_document("record", "predicate", "by", "user", to="somebody")
    ),
    "record: at another terminal": rare(
        APPROVED, DECISION, in_document("record", "predicate", "by", "tty", to="/dev/pts/99")
    ),
    "record: another reason": case(
        REJECTED, DECISION, in_document("record", "predicate", "reason", to="it is ugly")
    ),
    "record: another name of the phase": case(
        APPROVED, DECISION, in_document("record", "predicate", "phase", "name", to="Guessing")
    ),
    "record: another text of what is not proved": case(
        APPROVED, DECISION, in_document("record", "predicate", "notProved", to="All is proved.")
    ),
    "record: another request": case(
        APPROVED,
        DECISION,
        in_document("record", "predicate", "request", "digest", to={"sha256": OTHER}),
    ),
    "REJECTED: another reason": case(REJECTED, DECISION, line("count once more", "well done")),
    "REJECTED: no reason": rare(REJECTED, DECISION, without_line("reason ")),
    "WAIVED: another state before": case(
        WAIVED, DECISION, line("no attempt under this lock", "9 attempts under this lock")
    ),
    "WAIVED: no state before": rare(WAIVED, DECISION, without_line("previous state: ")),
    "WAIVED: another reason": case(WAIVED, DECISION, line("no such number", "it is fine")),
    "WAIVED: another title": case(WAIVED, DECISION, title("Count everything")),
    "RELOCKED: another reason": case(RELOCKED, DECISION, line("a better title", "a typo")),
    "RELOCKED: by another user": rare(
        RELOCKED, DECISION, line("relocked by ", "relocked by nobody but ")
    ),
    "RELOCKED: another commit": case(
        RELOCKED,
        f"{DECISION}|{LOCK}",
        lambda record: record.last.lines.__setitem__(
            record.last.index("head "), "head " + record.toy.git("rev-parse", "HEAD~2")
        ),
    ),
}


@pytest.mark.parametrize("name", names_of(PHASES))
def test_locks_halts_and_decisions_follow_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, PHASES[name])
