"""The path of a phase, started as a user starts it, in a real repository."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy, environment, toy_plan, with_shell_gates

from phases.base import durable
from phases.record.ledger import Entry, parse_ledger
from tests.soak import mark_soak


def ledger_entries(toy: Toy) -> tuple[Entry, ...]:
    return parse_ledger(toy.progress.encode()).entries


def entry_kinds(toy: Toy) -> list[str]:
    return [entry.kind.value for entry in ledger_entries(toy)]


#### a phase that passes


def test_a_phase_runs_to_its_checkpoint(make_toy: Callable[..., Toy]) -> None:
    # 1. What the run says.
    toy = make_toy()
    summary = json.loads(toy.run("run", "--next", "--json").stdout)
    assert summary["state"] == "awaiting_approval"
    assert [feature["state"] for feature in summary["features"]] == ["verified", "verified"]
    assert summary["features"][0]["checks"] == {"passed": 3, "failed": 0, "failing": []}

    # 2. Entries and commits.
    assert entry_kinds(toy) == [
        "GENESIS",
        "LOCKED",
        "STARTED",
        "VERIFIED",
        "STARTED",
        "VERIFIED",
        "HALTED",
    ]
    assert toy.git("log", "--format=%s").splitlines() == [
        "Phase 1 Counting 1: awaiting approval",
        "TOY-002 Count number 2: verified (3 checks)",
        "TOY-001 Count number 1: verified (3 checks)",
        "the toy project",
    ]
    assert toy.git("status", "--porcelain") == ""

    # 3. The record is valid.
    report = json.loads(toy.call("audit", "--json").stdout)
    checked = {"entries": 7, "commits": 3, "receipts": 2, "approvals": 0, "artifacts": 2}
    assert report == {"ok": True, "findings": [], "uncovered": [], "checked": checked}


def test_the_trailers_name_the_entry_and_the_receipt(halted: Toy) -> None:
    keys = ("Phases-Feature", "Phases-Entry", "Phases-Head", "Phases-Receipt")
    template = "".join(f"%(trailers:key={key},valueonly)" for key in keys)
    values = halted.git("log", "-1", f"--format={template}", "HEAD~1").split()
    entry = ledger_entries(halted)[5]
    receipt = durable.sha256((halted.root / "results/TOY-002/receipt.json").read_bytes())
    assert values == ["TOY-002", "0006", entry.self_hash, f"sha256:{receipt}"]


def test_the_receipt_says_what_ran_on_what(halted: Toy) -> None:
    results = halted.root / "results/TOY-001"
    receipt = json.loads((results / "receipt.json").read_text())
    assert receipt["predicateType"] == "https://slsa.dev/provenance/v1"

    # 1. What came out, each by its digest: committed, or in the store.
    digests = {item["name"]: item["digest"]["sha256"] for item in receipt["subject"]}
    assert set(digests) == {"result.json", "note.md", "artifacts/numbers.json"}
    for name in ("result.json", "note.md"):
        assert digests[name] == durable.sha256((results / name).read_bytes())
    artifact = digests["artifacts/numbers.json"]
    stored = halted.root / ".phases/artifacts" / artifact[:2] / artifact
    assert json.loads(stored.read_text()) == [3, 1, 4, 1, 5]

    # 2. What went in.
    definition = receipt["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["sandbox"]["tier"] == "none"
    uris = {item["uri"] for item in definition["resolvedDependencies"]}
    assert {"git", "prd/plan.json", "gates/test_count.py", "runner"} <= uris

    # 3. How it went.
    byproducts = {item["name"]: item for item in receipt["predicate"]["runDetails"]["byproducts"]}
    process = byproducts["process"]["content"]
    assert process["exitCode"] == 0
    assert process["peakMemoryBytes"] > 1_000_000
    assert "pydantic" in byproducts["packages"]["content"]


def test_needed_outputs_are_inputs_in_their_own_shape(make_toy: Callable[..., Toy]) -> None:
    # The second feature checks what it gets of the first one, then counts.
    script = (
        "import json, os, pathlib; i = json.load(open(os.environ['PHASES_INPUTS']));"
        " d = pathlib.Path(i['TOY-001']['path']); assert i['TOY-001']['kind'] == 'feature', i;"
        " assert i['TOY-001']['receipt'].startswith('sha256:');"
        " assert json.loads((d / 'artifacts/numbers.json').read_text()) == [3, 1, 4, 1, 5];"
        " assert (d / 'note.md').exists()"
    )
    plan = with_shell_gates(toy_plan(features=2))
    second = plan["phases"][0]["features"][1]
    second["needs"] = ["TOY-001"]
    second["command"] = f'{sys.executable} -c "{script}" && {second["command"]}'
    toy = make_toy(plan)
    toy.run("run", "--next")
    receipt = json.loads((toy.root / "results/TOY-002/receipt.json").read_text())
    dependencies = receipt["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert "feature:TOY-001" in {item["uri"] for item in dependencies}


#### failures


FAILURES = {
    "crash": ("errored", "ended with exit 1", 1),
    "wrong": ("failed", "test_total", 1),
    "stray": ("errored", "stray.txt", 1),
    "hang": ("errored", "timeout", 5),
}
"""Mode of the experiment -> the feature's state, what progress.txt says, the exit code."""


@pytest.mark.parametrize("mode", mark_soak(FAILURES, short={"wrong", "hang"}))
def test_failures_are_recorded_and_committed(make_toy: Callable[..., Toy], mode: str) -> None:
    # 1. The failed attempt.
    state, message, code = FAILURES[mode]
    plan = toy_plan(features=1, timeout_s=3)
    if mode != "wrong":
        with_shell_gates(plan)  # the gate is not what fails
    toy = make_toy(plan)
    toy.set_mode(mode)
    toy.run("run", "--next", code=code)
    assert toy.states() == {"TOY-001": state}
    assert message in toy.progress
    record = json.loads((toy.root / "results/TOY-001/attempts/1.json").read_text())
    assert record["state"] == state
    assert not (toy.root / "results/TOY-001/result.json").exists()
    assert toy.git("log", "-1", "--format=%s").startswith(f"TOY-001 Count number 1: {state}")
    if mode in ("wrong", "stray"):
        assert (toy.root / ".phases/quarantine/TOY-001/1/result.json").exists()
    toy.assert_audit_is_clean()

    # 2. Once it is fixed, the next attempt is verified.
    toy.set_mode("good")
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified"}
    assert "attempt 2, seed 0" in toy.progress
    toy.assert_audit_is_clean()


def test_attempts_are_limited(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(with_shell_gates(toy_plan(features=1, attempts=2)))
    toy.set_mode("crash")
    toy.run("run", "--next", code=1)
    toy.run("run", "--next", code=1)
    before = toy.record_contents()
    spent = toy.call("run", "--next", code=5)
    assert "failed 2 times under this plan lock" in spent.stderr
    assert toy.record_contents() == before


def test_a_results_folder_with_a_space_keeps_its_lock(make_toy: Callable[..., Toy]) -> None:
    plan = with_shell_gates(toy_plan(features=2))
    plan["results"] = "my results"
    toy = make_toy(plan)
    toy.run("run", "--feature", "TOY-001")
    toy.assert_audit_is_clean()

    # The lock is read back: a changed gate of the phase stops the run.
    toy.write("gates/test_count.py", "def test_nothing():\n    pass\n")
    toy.commit("a weaker gate")
    assert "gates/test_count.py" in toy.call("run", "--next", code=3).stderr


def test_a_run_that_comes_to_spent_attempts_says_what_it_ran(make_toy: Callable[..., Toy]) -> None:
    plan = with_shell_gates(toy_plan(features=2, attempts=1))
    plan["phases"][0]["features"][1]["command"] = "exit 3"
    toy = make_toy(plan)
    toy.run("run", "--feature", "TOY-002", code=1)

    # It verifies the first feature and stops at the second one.
    summary = json.loads(toy.run("run", "--next", "--json", code=1).stdout)
    assert summary["state"] == "failed"
    states = [(feature["id"], feature["state"]) for feature in summary["features"]]
    assert states == [("TOY-001", "verified")]

    # The next run has nothing to run.
    spent = toy.call("run", "--next", code=5)
    assert "TOY-002 of phase 1 failed 1 times under this plan lock" in spent.stderr


def test_keep_going_runs_what_does_not_need_the_failed_one(make_toy: Callable[..., Toy]) -> None:
    plan = with_shell_gates(toy_plan(features=3))
    first, _, third = plan["phases"][0]["features"]
    first["command"] = "exit 3"
    third["needs"] = ["TOY-001"]
    toy = make_toy(plan)
    toy.run("run", "--next", "--keep-going", code=1)
    assert toy.states() == {"TOY-001": "errored", "TOY-002": "verified", "TOY-003": "pending"}


WEAK_GATE = """
import os, pathlib

def test_exists():
    assert (pathlib.Path(os.environ["PHASES_OUT"]) / "result.json").exists()
"""


def test_a_gate_that_cannot_fail_fails_the_feature(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.write("gates/test_count.py", WEAK_GATE)
    toy.commit("a gate like the first lab's")
    toy.run("run", "--next", code=1)
    assert toy.states() == {"TOY-001": "failed"}
    assert "this gate cannot fail" in toy.progress


def test_files_may_be_exempt_from_the_first_lock_on(make_toy: Callable[..., Toy]) -> None:
    # 1. A gate that does not look at the text does not kill the mutant of the text.
    toy = make_toy(toy_plan(features=1))
    gate = (toy.root / "gates/test_count.py").read_text()
    toy.write("gates/test_count.py", gate[: gate.index("@pytest.mark.integrity")])
    toy.commit("no check of the text")
    exempt = toy.copy(toy.root.parent / "exempt")
    toy.run("run", "--next", code=1)
    assert toy.states() == {"TOY-001": "failed"}
    assert "it survives a mutant of note.md (every second line or word dropped)" in toy.progress

    # 2. Once the plan is locked, it cannot exempt the text.
    exemption = {"files": "*.md", "reason": "read by people"}
    toy.change_plan(exempt=[exemption])
    toy.call("run", "--next", code=3)

    # 3. Before, it can; entry, verdict and every view say so.
    exempt.change_plan(exempt=[exemption])
    assert "exempt: *.md: read by people" in exempt.call("plan").stdout
    assert "Exempt by the plan: *.md: read by people." in exempt.call("why", "TOY-001").stdout
    exempt.run("run", "--next")
    stated = "exempt by the plan: *.md: read by people"
    assert stated in exempt.progress
    verdict = json.loads((exempt.root / "results/TOY-001/verdict.json").read_text())
    assert verdict["predicate"]["phases/gate/v1"]["exempt"] == [exemption]
    assert stated in exempt.call("status").stdout
    assert stated in exempt.call("show", "TOY-001").stdout
    assert stated in exempt.call("log").stdout
    [feature] = exempt.status()["phases"][0]["features"]
    assert feature["exempt"] == ["*.md: read by people"]


def test_what_is_protected_by_digest_only_is_shown(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.run("run", "--next")
    stated = "protected by digest only: note.md"
    verdict = json.loads((toy.root / "results/TOY-001/verdict.json").read_text())
    assert verdict["predicate"]["phases/gate/v1"]["digestOnly"] == ["note.md"]
    assert stated in toy.progress
    assert stated in toy.call("status").stdout
    assert stated in toy.call("show", "TOY-001").stdout
    _, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert stated in screen
    [feature] = toy.status()["phases"][0]["features"]
    assert feature["digest_only"] == ["note.md"]


#### what a run is judged by


def test_repository_inputs_equal_head(make_toy: Callable[..., Toy]) -> None:
    plan = with_shell_gates(toy_plan(features=1))
    plan["inputs"] = [{"name": "notes", "path": "notes"}]
    plan["phases"][0]["features"][0]["inputs"] = ["notes"]
    toy = make_toy(toy_plan(features=1))
    toy.write("notes/a.md", "hello\n")
    toy.write("prd/plan.json", json.dumps(plan))
    toy.commit("notes")

    # A tracked file that differs from HEAD blocks, an untracked one does not.
    toy.write("notes/a.md", "changed\n")
    refused = toy.call("run", "--next", code=7)
    assert "notes/a.md (changed)" in refused.stderr
    assert not (toy.root / "progress.txt").exists()
    toy.git("checkout", "notes/a.md")
    toy.write("notes/untracked.md", "does not block\n")
    toy.run("run", "--next")


@pytest.mark.parametrize("path", ["gates/test_count.py", "prd/plan.json"])
def test_uncommitted_changes_to_what_judges_are_refused(
    make_toy: Callable[..., Toy], path: str
) -> None:
    toy = make_toy()
    toy.write(path, (toy.root / path).read_text() + "\n")
    refused = toy.call("run", "--next", code=7)
    assert f"{path} (changed)" in refused.stderr
    assert "commit these files" in refused.stderr


def test_a_plan_that_changes_inside_a_phase_stops_the_run(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(with_shell_gates(toy_plan()))
    toy.run("run", "--feature", "TOY-001")
    gate = (toy.root / "gates/test_count.py").read_text()
    toy.write("gates/test_count.py", gate + "\n# weaker\n")
    toy.commit("a small change")
    before = toy.record_contents()
    refused = toy.call("run", "--next", code=3)
    assert "gates/test_count.py" in refused.stderr
    assert "+# weaker" in refused.stderr
    assert "relock 1" in refused.stderr
    assert toy.record_contents() == before


TOPIC_PLAN_GATES = ("gates/one/test_count.py", "gates/two/test_count.py")


def make_topic_toy(make_toy: Callable[..., Toy]) -> Toy:
    """Return a toy whose two features are judged by gates in two topics."""
    plan = toy_plan(features=2)
    for feature, path in zip(plan["phases"][0]["features"], TOPIC_PLAN_GATES, strict=True):
        feature["gate"] = {"pytest": path}
    plan["phases"][0]["entry"] = []
    plan["phases"][0]["exit"] = [{"pytest": "gates/exit/test_exit.py"}]
    toy = make_toy(toy_plan())
    gate = (toy.root / "gates/test_count.py").read_text()
    exit_gate = (toy.root / "gates/test_exit.py").read_text()
    toy.git("rm", "-q", "gates/test_count.py", "gates/test_exit.py")
    for path in TOPIC_PLAN_GATES:
        toy.write(path, f"from gates.shared.constants import TOLERANCE\n{gate}")
    toy.write("gates/exit/test_exit.py", exit_gate)
    toy.write("gates/shared/constants.py", "TOLERANCE = 1e-9\n")
    toy.write("prd/plan.json", json.dumps(plan))
    toy.commit("gates in topics")
    # Gates import by a path that pytest reads from a file, where some characters have a meaning.
    return toy.copy(toy.root.parent / "a folder; with #odd% 'names'")


def test_a_fix_in_one_topic_voids_no_other_topics_results(make_toy: Callable[..., Toy]) -> None:
    # 1. Each gate imports from gates/shared; the features are verified.
    toy = make_topic_toy(make_toy)
    toy.run("run", "--feature", "TOY-001")
    toy.run("run", "--feature", "TOY-002")

    # 2. A helper of one topic is fixed: only that topic's feature is reset.
    toy.write("gates/two/helper.py", "FIXED = True\n")
    toy.commit("a fix in topic two")
    reason = ("--reason", "a fix in topic two")
    code, screen = at_terminal(toy.root, "relock", "1", *reason, answer=as_asked)
    assert code == 0, screen
    assert "reset: TOY-002" in screen
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified", "TOY-002": "verified"}
    assert toy.progress.count("STARTED · Phase 1 · TOY-001") == 1
    assert toy.progress.count("STARTED · Phase 1 · TOY-002") == 2


def test_a_gate_cannot_import_another_topic(make_toy: Callable[..., Toy]) -> None:
    toy = make_topic_toy(make_toy)
    toy.write("gates/two/helper.py", "LIMIT = 3\n")
    gate = (toy.root / TOPIC_PLAN_GATES[0]).read_text()
    toy.write(TOPIC_PLAN_GATES[0], f"from gates.two.helper import LIMIT\n{gate}")
    toy.commit("a gate that imports another topic's helper")
    toy.run("run", "--feature", "TOY-001", code=1)
    assert toy.states()["TOY-001"] == "errored"
    assert "No module named 'gates.two'" in toy.progress


def test_setup_gets_the_cache_and_its_digests_are_checked(
    make_toy: Callable[..., Toy], tmp_path: Path
) -> None:
    plan = with_shell_gates(toy_plan(features=1))
    digests = {"word.txt": durable.sha256(b"hi\n")}
    item = {"name": "word", "path": "$PHASES_CACHE/word", "sha256": digests}
    phase = plan["phases"][0]
    phase["setup"] = ["mkdir -p $PHASES_CACHE/word && echo hi > $PHASES_CACHE/word/word.txt"]
    phase["features"][0]["inputs"] = ["word"]

    # The digest that the plan has, then another one.
    env = {"PHASES_CACHE": str(tmp_path / "cache")}
    make_toy(plan | {"inputs": [item]}).run("run", "--next", env=env)
    item = item | {"sha256": {"word.txt": "0" * 64}}
    other = make_toy(plan | {"inputs": [item]}, name="other")
    refused = other.run("run", "--next", code=7, env=env)
    assert "expected 000000" in refused.stderr


#### entry and exit gates


def test_an_entry_gate_that_fails_leaves_no_entry(make_toy: Callable[..., Toy]) -> None:
    plan = toy_plan()
    plan["phases"][0]["entry"] = [{"shell": "test -s missing.md"}]
    toy = make_toy(plan)
    refused = toy.run("run", "--next", code=1)
    assert "entry gate `test -s missing.md` failed" in refused.stderr
    assert not (toy.root / "progress.txt").exists()


def test_an_exit_gate_that_fails_halts_nothing(make_toy: Callable[..., Toy]) -> None:
    plan = with_shell_gates(toy_plan(features=1))
    plan["phases"][0]["exit"] = [{"pytest": "gates/test_exit.py"}]
    toy = make_toy(plan)
    toy.write("gates/test_exit.py", "def test_never():\n    assert 0, 'not yet'\n")
    toy.commit("a strict exit")
    toy.run("run", "--next", code=1)
    phase = toy.status()["phases"][0]
    assert phase["state"] == "failed"
    assert phase["features"][0]["state"] == "verified"
    assert "HALTED" not in toy.progress

    # The next run repeats only the exit gates.
    starts = toy.progress.count("STARTED")
    toy.run("run", "--next", code=1)
    assert toy.progress.count("STARTED") == starts
    toy.assert_audit_is_clean()


#### runs that record nothing


def test_a_scratch_run_records_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    scratch = ("run", "--feature", "TOY-001", "--scratch")
    toy.write("MODE", "wrong")  # not committed: a developer may try
    failed = toy.run(*scratch, code=1)
    lines = failed.stderr.splitlines()
    assert [line for line in lines if "[scratch: work tree]" not in line] == []
    assert "nothing was recorded" in failed.stderr
    toy.write("MODE", "good")
    assert json.loads(toy.run(*scratch, "--json").stdout)["scratch"] is True
    assert not (toy.root / "progress.txt").exists()
    assert not (toy.root / "results").exists()
    assert toy.git("log", "--oneline").count("\n") == 0


def test_verify_judges_again_what_is_stored(halted: Toy) -> None:
    report = json.loads(halted.run("verify", "--json").stdout)
    assert [feature["state"] for feature in report["features"]] == ["verified", "verified"]
    before = halted.record_contents()
    halted.run("verify", "TOY-001")
    assert halted.record_contents() == before

    # A changed artifact is an error of the record, a missing one is the machine's fault.
    artifact = next((halted.root / ".phases/artifacts").rglob("*/*"))
    artifact.write_text("[3, 1, 4, 1, 6]")
    refused = halted.call("verify", "TOY-001", code=3)
    assert "is not what the receipt names" in refused.stderr
    artifact.unlink()
    refused = halted.call("verify", "TOY-001", code=7)
    assert "copy .phases/artifacts/ from the machine that has it" in refused.stderr


def test_dry_run_and_plan_run_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    for words in (["plan"], ["run", "--next", "--dry-run"]):
        text = toy.call(*words).stdout
        assert "TOY-001" in text
        assert "then it halts for your approval of phase 1" in text
    assert json.loads(toy.call("plan", "--json").stdout)["features"][0]["minutes"] == 0.1
    assert not (toy.root / "progress.txt").exists()


USAGE_ERRORS = {
    "run": "expected one of --next and --feature ID",
    "run --next --feature TOY-001": "expected one of --next and --feature ID",
    "run --feature NOPE": "it has TOY-001, TOY-002",
    "run --next --profile smoke": "--scratch",
    "approve 1": "only a phase that awaits approval",
    "approve 9": "no phase 9",
    "verify NOPE": "no feature 'NOPE'",
    "frobnicate": "No such command",
}
"""Command line -> what its refusal says."""


@pytest.mark.parametrize("command", USAGE_ERRORS)
def test_usage_errors_name_what_was_given(make_toy: Callable[..., Toy], command: str) -> None:
    refused = make_toy().call(*command.split(), code=2)
    assert USAGE_ERRORS[command] in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_repository_and_no_plan(tmp_path: Path, make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    assert "not a git repository" in toy.run("--root", str(tmp_path), "status", code=7).stderr
    (toy.root / "prd/plan.json").unlink()
    assert "expected exactly one" in toy.call("status", code=2).stderr


#### two runners


def start_hanging_run(toy: Toy) -> subprocess.Popen[bytes]:
    """Start a runner in the background whose experiment hangs; return once it has started."""
    toy.set_mode("hang")
    runner = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=toy.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    for _ in range(600):
        if (toy.root / "progress.txt").exists() and "STARTED" in toy.progress:
            time.sleep(0.3)
            return runner
        time.sleep(0.1)
    raise AssertionError("the run did not start")


def test_a_second_runner_is_told_who_is_at_work(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    runner = start_hanging_run(toy)
    try:
        begin = time.monotonic()
        refused = toy.run("run", "--next", code=6)
        assert time.monotonic() - begin < 5
        assert f"pid {runner.pid} on " in refused.stderr
    finally:
        runner.send_signal(signal.SIGINT)
        assert runner.wait(timeout=60) == 130

    # Ctrl-C is recorded, and is no attempt.
    assert toy.states() == {"TOY-001": "pending"}
    assert "INTERRUPTED" in toy.progress
    assert toy.status()["phases"][0]["features"][0]["attempts"] == 0
    toy.assert_audit_is_clean()
