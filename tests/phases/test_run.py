"""The path of a phase, started as a user starts it, in a real repository."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import Toy, toy_plan

from phases.base import durable
from phases.record.ledger import parse_ledger


def test_a_phase_runs_to_its_checkpoint(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    done = json.loads(toy.run("run", "--next", "--json").stdout)
    assert done["state"] == "awaiting_approval"
    assert [item["state"] for item in done["features"]] == ["verified", "verified"]
    assert done["features"][0]["checks"] == {"passed": 3, "failed": 0, "failing": []}
    kinds = [entry.kind for entry in parse_ledger(toy.progress.encode()).entries]
    assert kinds == ["GENESIS", "LOCKED", "STARTED", "VERIFIED", "STARTED", "VERIFIED", "HALTED"]
    assert toy.git("log", "--format=%s").splitlines() == [
        "Phase 1 Counting 1: awaiting approval", "TOY-002 Count number 2: verified (3 checks)",
        "TOY-001 Count number 1: verified (3 checks)", "the toy project"]  # fmt: skip
    assert toy.git("status", "--porcelain") == ""
    report = json.loads(toy.run("audit", "--json").stdout)
    assert report == {"ok": True, "findings": [], "uncovered": [], "checked": {
        "entries": 7, "commits": 3, "receipts": 2, "approvals": 0, "artifacts": 2}}  # fmt: skip


def test_the_trailers_name_the_entry_and_the_receipt(halted: Toy) -> None:
    form = "%(trailers:key=Phases-Feature,valueonly)%(trailers:key=Phases-Entry,valueonly)" \
           "%(trailers:key=Phases-Head,valueonly)%(trailers:key=Phases-Receipt,valueonly)"  # fmt: skip
    named = halted.git("log", "-1", f"--format={form}", "HEAD~1").split()
    entry = parse_ledger(halted.progress.encode()).entries[5]
    receipt = durable.sha256((halted.root / "results/TOY-002/receipt.json").read_bytes())
    assert named == ["TOY-002", "0006", entry.self_hash, f"sha256:{receipt}"]


def test_the_receipt_says_what_ran_on_what(halted: Toy) -> None:
    receipt = json.loads((halted.root / "results/TOY-001/receipt.json").read_text())
    assert receipt["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {item["name"]: item["digest"]["sha256"] for item in receipt["subject"]}
    assert set(subjects) == {"result.json", "note.md", "artifacts/numbers.json"}
    for name in ("result.json", "note.md"):
        assert subjects[name] == durable.sha256(
            (halted.root / "results/TOY-001" / name).read_bytes()
        )
    stored = halted.root / ".phases/artifacts" / subjects["artifacts/numbers.json"][:2]
    assert json.loads((stored / subjects["artifacts/numbers.json"]).read_text()) == [3, 1, 4, 1, 5]
    built = receipt["predicate"]["buildDefinition"]
    assert built["internalParameters"]["sandbox"]["tier"] == "none"
    names = {item["uri"] for item in built["resolvedDependencies"]}
    assert {"git", "prd/plan.json", "gates/test_count.py", "runner"} <= names
    by = {
        item["name"]: item.get("content", item)
        for item in receipt["predicate"]["runDetails"]["byproducts"]
    }
    assert by["process"]["exitCode"] == 0
    assert by["process"]["peakMemoryBytes"] > 1_000_000
    assert "pydantic" in by["packages"]


@pytest.mark.parametrize(
    ("mode", "state", "said"),
    [("crash", "errored", "ended with exit 1"), ("wrong", "failed", "test_total"), ("stray", "errored", "stray.txt"),
     ("hang", "errored", "timeout")],
)  # fmt: skip
def test_failures_are_recorded_and_committed(
    make_toy: Callable[..., Toy], mode: str, state: str, said: str
) -> None:
    toy = make_toy(toy_plan(timeout_s=3))
    toy.write("MODE", mode)
    toy.commit(mode)
    toy.run("run", "--next", code=5 if mode == "hang" else 1)
    assert toy.states() == {"TOY-001": state, "TOY-002": "pending"}
    assert said in toy.progress
    record = json.loads((toy.root / "results/TOY-001/attempts/1.json").read_text())
    assert record["state"] == state
    assert not (toy.root / "results/TOY-001/result.json").exists()
    assert toy.git("log", "-1", "--format=%s").startswith(f"TOY-001 Count number 1: {state}")
    if mode in ("wrong", "stray"):
        assert (toy.root / ".phases/quarantine/TOY-001/1/result.json").exists()
    toy.run("audit")
    toy.write("MODE", "good")
    toy.commit("mended")
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified", "TOY-002": "verified"}
    assert "attempt 2, seed 0" in toy.progress
    toy.run("audit")


def test_attempts_are_limited(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1, attempts=2))
    toy.write("MODE", "crash")
    toy.commit("crash")
    toy.run("run", "--next", code=1)
    toy.run("run", "--next", code=1)
    before = toy.snapshot()
    spent = toy.run("run", "--next", code=5)
    assert "failed 2 times under this plan lock" in spent.stderr
    assert toy.snapshot() == before


def test_keep_going_runs_what_does_not_need_the_failed_one(make_toy: Callable[..., Toy]) -> None:
    plan = toy_plan(features=3)
    plan["phases"][0]["features"][0]["command"] = "exit 3"
    plan["phases"][0]["features"][2]["needs"] = ["TOY-001"]
    toy = make_toy(plan)
    toy.run("run", "--next", "--keep-going", code=1)
    assert toy.states() == {"TOY-001": "errored", "TOY-002": "verified", "TOY-003": "pending"}


def test_a_gate_that_cannot_fail_fails_the_feature(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.write("gates/test_count.py", "import os, pathlib\n\n\ndef test_there():\n"
              "    assert (pathlib.Path(os.environ['PHASES_OUT']) / 'result.json').exists()\n")  # fmt: skip
    toy.commit("a gate like the first lab's")
    toy.run("run", "--next", code=1)
    assert toy.states() == {"TOY-001": "failed"}
    assert "this gate cannot fail" in toy.progress


def test_unjudged_kinds_are_said_first(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    gate = (toy.root / "gates/test_count.py").read_text()
    toy.write("gates/test_count.py", gate[: gate.index("@pytest.mark.integrity")])
    toy.commit("nobody looks at the text")
    toy.run("run", "--next", code=1)
    toy2 = toy.copy(toy.root.parent / "unjudged")
    toy2.plan(unjudged=["text"])
    toy2.run("run", "--next", code=3)  # the plan is locked


def test_needs_are_given_in_their_own_shape(make_toy: Callable[..., Toy]) -> None:
    plan = toy_plan(features=2)
    see = ("import json, os, pathlib; i = json.load(open(os.environ['PHASES_INPUTS']));"
           " d = pathlib.Path(i['TOY-001']['path']); assert i['TOY-001']['kind'] == 'feature', i;"
           " assert i['TOY-001']['receipt'].startswith('sha256:');"
           " assert json.loads((d / 'artifacts/numbers.json').read_text()) == [3, 1, 4, 1, 5];"
           " assert (d / 'note.md').exists()")  # fmt: skip
    second = plan["phases"][0]["features"][1]
    second["needs"] = ["TOY-001"]
    second["command"] = f'{sys.executable} -c "{see}" && {second["command"]}'
    toy = make_toy(plan)
    toy.run("run", "--next")
    receipt = json.loads((toy.root / "results/TOY-002/receipt.json").read_text())
    uris = {item["uri"] for item in receipt["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert "feature:TOY-001" in uris


def test_repository_inputs_equal_head(make_toy: Callable[..., Toy]) -> None:
    plan = toy_plan(features=1)
    plan["inputs"] = [{"name": "notes", "path": "notes"}]
    plan["phases"][0]["features"][0]["inputs"] = ["notes"]
    toy = make_toy(toy_plan(features=1))
    toy.write("notes/a.md", "hello\n")
    toy.write("prd/plan.json", json.dumps(plan))
    toy.commit("notes")
    toy.write("notes/a.md", "changed\n")
    refused = toy.run("run", "--next", code=7)
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
    refused = toy.run("run", "--next", code=7)
    assert f"{path} (changed)" in refused.stderr
    assert "commit these files" in refused.stderr


def test_a_plan_that_changes_inside_a_phase_stops_the_run(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    toy.run("run", "--feature", "TOY-001")
    toy.write(
        "gates/test_count.py", (toy.root / "gates/test_count.py").read_text() + "\n# weaker\n"
    )
    toy.commit("a small change")
    before = toy.snapshot()
    stopped = toy.run("run", "--next", code=3)
    assert "gates/test_count.py" in stopped.stderr
    assert "+# weaker" in stopped.stderr
    assert "relock 1" in stopped.stderr
    assert toy.snapshot() == before


def test_users_own_changes_stay_as_they_were(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.write("staged.txt", "staged\n")
    toy.write("mixed.txt", "first\n")
    toy.git("add", "staged.txt", "mixed.txt")
    toy.write("mixed.txt", "second\n")
    toy.write("loose.txt", "loose\n")
    before = toy.git("status", "--porcelain"), toy.git("diff"), toy.git("diff", "--cached")
    toy.run("run", "--next")
    assert (
        toy.git("status", "--porcelain"),
        toy.git("diff"),
        toy.git("diff", "--cached"),
    ) == before
    assert "staged.txt" not in toy.git("log", "--name-only", "--format=")


def test_hooks_of_the_user_do_not_run(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    hook = toy.root / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    toy.run("run", "--next")


def test_scratch_leaves_no_trace(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    toy.write("MODE", "wrong")  # not committed: whoever develops may try
    done = toy.run("run", "--feature", "TOY-001", "--scratch", code=1)
    assert "[scratch: nothing was recorded]" in done.stderr
    toy.write("MODE", "good")
    assert (
        json.loads(toy.run("run", "--feature", "TOY-001", "--scratch", "--json").stdout)["scratch"]
        is True
    )
    assert not (toy.root / "progress.txt").exists()
    assert not (toy.root / "results").exists()
    assert toy.git("log", "--oneline").count("\n") == 0


def test_verify_judges_again_what_is_stored(halted: Toy) -> None:
    told = json.loads(halted.run("verify", "--json").stdout)
    assert [item["state"] for item in told["features"]] == ["verified", "verified"]
    before = halted.snapshot()
    halted.run("verify", "TOY-001")
    assert halted.snapshot() == before
    artifact = next((halted.root / ".phases/artifacts").rglob("*/*"))
    artifact.write_text("[3, 1, 4, 1, 6]")
    assert "is not what the receipt names" in halted.run("verify", "TOY-001", code=3).stderr
    artifact.unlink()
    assert (
        "copy .phases/artifacts/ from the machine that has it"
        in halted.run("verify", "TOY-001", code=7).stderr
    )


def test_dry_run_and_plan_run_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    for words in (["plan"], ["run", "--next", "--dry-run"]):
        shown = toy.run(*words).stdout
        assert "TOY-001" in shown
        assert "then it halts for your approval of phase 1" in shown
    assert json.loads(toy.run("plan", "--json").stdout)["features"][0]["minutes"] == 0.1
    assert not (toy.root / "progress.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["run"], "say what to run"), (["run", "--next", "--feature", "TOY-001"], "say what to run"),
     (["run", "--feature", "NOPE"], "it has TOY-001, TOY-002"), (["run", "--next", "--profile", "smoke"], "--scratch"),
     (["approve", "1"], "only a phase that awaits approval"), (["approve", "9"], "no phase 9"),
     (["verify", "NOPE"], "no feature 'NOPE'"), (["frobnicate"], "No such command")],
)  # fmt: skip
def test_usage_errors_name_what_was_met(
    make_toy: Callable[..., Toy], words: list[str], said: str
) -> None:
    refused = make_toy().run(*words, code=2)
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_repository_and_no_plan(tmp_path: Path, make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    assert "not a git repository" in toy.run("--root", str(tmp_path), "status", code=7).stderr
    (toy.root / "prd/plan.json").unlink()
    assert "wanted exactly one" in toy.run("status", code=2).stderr


def test_an_entry_gate_that_says_no_leaves_no_entry(make_toy: Callable[..., Toy]) -> None:
    plan = toy_plan()
    plan["phases"][0]["entry"] = [{"shell": "test -s missing.md"}]
    toy = make_toy(plan)
    refused = toy.run("run", "--next", code=1)
    assert "entry gate `test -s missing.md` failed" in refused.stderr
    assert not (toy.root / "progress.txt").exists()


def test_an_exit_gate_that_says_no_halts_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.write("gates/test_exit.py", "def test_never():\n    assert 0, 'not yet'\n")
    toy.commit("a strict exit")
    toy.run("run", "--next", code=1)
    status = toy.status()
    assert status["phases"][0]["state"] == "failed"
    assert status["phases"][0]["features"][0]["state"] == "verified"
    assert "HALTED" not in toy.progress
    starts = toy.progress.count("STARTED")
    toy.run("run", "--next", code=1)  # repeats only the exit gates
    assert toy.progress.count("STARTED") == starts
    toy.run("audit")


def test_setup_gets_the_cache_and_its_digests_are_checked(
    make_toy: Callable[..., Toy], tmp_path: Path
) -> None:
    plan = toy_plan(features=1)
    plan["inputs"] = [
        {
            "name": "word",
            "path": "$PHASES_CACHE/word",
            "sha256": {"word.txt": durable.sha256(b"hi\n")},
        }
    ]
    plan["phases"][0]["setup"] = [
        "mkdir -p $PHASES_CACHE/word && echo hi > $PHASES_CACHE/word/word.txt"
    ]
    plan["phases"][0]["features"][0]["inputs"] = ["word"]
    toy = make_toy(plan)
    env = {"PHASES_CACHE": str(tmp_path / "cache")}
    toy.run("run", "--next", env=env)
    other = make_toy(
        plan | {"inputs": [{**plan["inputs"][0], "sha256": {"word.txt": "0" * 64}}]}, name="other"
    )
    refused = other.run("run", "--next", code=7, env=env)
    assert "the PRD wants 000000" in refused.stderr


def test_a_second_runner_is_told_who_is_at_work(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.write("MODE", "hang")
    toy.commit("hang")
    child = start(toy)
    try:
        wait_for(toy, "STARTED")
        begin = time.monotonic()
        busy = toy.run("run", "--next", code=6)
        assert time.monotonic() - begin < 5
        assert f"pid {child.pid} on " in busy.stderr
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
    assert toy.states() == {"TOY-001": "pending"}
    assert "INTERRUPTED" in toy.progress
    assert toy.status()["phases"][0]["features"][0]["attempts"] == 0
    toy.run("audit")


def test_a_killed_runner_is_recovered(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1))
    toy.write("MODE", "hang")
    toy.commit("hang")
    child = start(toy)
    wait_for(toy, "STARTED")
    child.kill()
    child.wait()
    toy.write("MODE", "good")
    toy.commit("good")
    toy.run("run", "--next")
    kinds = [entry.kind for entry in parse_ledger(toy.progress.encode()).entries]
    assert kinds == ["GENESIS", "LOCKED", "STARTED", "INTERRUPTED", "STARTED", "VERIFIED", "HALTED"]
    toy.run("audit")


def start(toy: Toy) -> subprocess.Popen[bytes]:
    """A runner in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"], cwd=toy.root, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    )  # fmt: skip


def wait_for(toy: Toy, word: str) -> None:
    """Waits until progress.txt holds a word."""
    for _ in range(600):
        if (toy.root / "progress.txt").exists() and word in toy.progress:
            time.sleep(0.3)
            return
        time.sleep(0.1)
    raise AssertionError(word)
