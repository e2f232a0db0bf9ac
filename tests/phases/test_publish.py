"""Published copies of results, and plan locks, against the record: the run, the audit, a forger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forged_record import audit_report
from test_audit import journal, progress, rechain, trailers
from toy import Toy, feature, toy_plan

from phases.base import durable
from phases.record.ledger import Ledger, parse_ledger

TARGET = "docs/published/note.md"


@pytest.fixture(scope="module")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    plan = toy_plan(features=1)
    plan["phases"][0]["features"] = [feature(1, publish={"note.md": TARGET})]
    toy = Toy(tmp_path_factory.mktemp("published") / "toy", plan)
    assert not (toy.root / TARGET).exists()
    toy.run("run", "--next")
    return toy


@pytest.fixture
def published(_published: Toy, tmp_path: Path) -> Toy:
    """Return a toy whose only feature publishes its note, run to the checkpoint."""
    return _published.copy(tmp_path / "toy")


def commit_all_as_the_runner(toy: Toy, text: str) -> None:
    """Forge the history: one commit from the first on, with all entries and the trailers.

    Only who may write `.git` can do that.
    """
    progress(toy).write_text(text)
    journal(toy).write_text(text)
    toy.git("reset", "-q", "--soft", toy.git("rev-list", "--max-parents=0", "HEAD"))
    last = parse_ledger(text.encode()).entries[-1]
    toy.commit(f"all of it\n\n{trailers(last)}")
    toy.git("update-ref", "refs/phases/log", "HEAD")


def until_verified(text: str) -> str:
    """Return a ledger without what follows its last VERIFIED."""
    ledger = parse_ledger(text.encode())
    last = max(entry.seq for entry in ledger.entries if entry.kind == "VERIFIED")
    return Ledger(ledger.header, ledger.entries[:last]).data.decode()


def finding_codes(toy: Toy) -> set[tuple[str, str]]:
    """Return code and severity of every finding of the audit."""
    _, report = audit_report(toy)
    return {(finding["code"], finding["severity"]) for finding in report["findings"]}


def audit_exit_code(toy: Toy) -> int:
    code, _ = audit_report(toy)
    return code


def test_a_copy_is_published_in_the_commit_of_the_result(published: Toy) -> None:
    copy = published.git("show", f"HEAD~1:{TARGET}")
    assert copy == published.git("show", "HEAD~1:results/TOY-001/note.md")
    assert audit_exit_code(published) == 0
    assert finding_codes(published) == set()


def test_a_user_may_edit_a_published_copy_and_the_audit_warns(published: Toy) -> None:
    published.write(TARGET, "# My own words\n")
    published.commit("my words")
    assert audit_exit_code(published) == 0
    assert finding_codes(published) == {("published-changed", "warning")}


def test_a_published_copy_that_differs_in_its_commit_is_an_error(published: Toy) -> None:
    # Changed in a commit of the user's: the copy differs since then.
    published.write(TARGET, "# Numbers\n\nsix of them\n")
    published.git("commit", "-q", "-m", "edited", "--", TARGET)
    assert finding_codes(published) == {("published-changed", "warning")}

    # Changed in the commit that recorded it.
    commit_all_as_the_runner(published, until_verified(published.progress))
    assert ("published-changed", "error") in finding_codes(published)
    assert audit_exit_code(published) == 3


def test_a_published_copy_with_uncommitted_changes_stops_the_next_run(published: Toy) -> None:
    published.write(TARGET, "# Not committed\n")
    refused = published.call("run", "--feature", "TOY-001", "--force", code=7)
    assert TARGET in refused.stderr
    assert (published.root / TARGET).read_text() == "# Not committed\n"


def test_a_lock_that_contradicts_its_commit_is_named(published: Toy) -> None:
    """The digest of a gate is replaced in the lock, and every hash after it is recomputed."""
    # 1. The control: the forged history alone does not contradict the lock.
    commit_all_as_the_runner(published, published.progress)
    assert "lock-contradicts" not in {code for code, _ in finding_codes(published)}

    # 2. Another digest in the lock.
    path = published.root / "results/phase-1/lock.json"
    text = path.read_text()
    components = json.loads(text)["components"]
    gate = next(name for name in components if "test_count" in name)
    forged = text.replace(components[gate], "0" * len(components[gate]))
    assert forged != text
    path.write_text(forged)

    # 3. The ledger names the forged lock.
    digest, forged_digest = durable.sha256(text.encode()), durable.sha256(forged.encode())
    commit_all_as_the_runner(published, rechain(published.progress, digest, forged_digest))
    assert ("lock-contradicts", "error") in finding_codes(published)
