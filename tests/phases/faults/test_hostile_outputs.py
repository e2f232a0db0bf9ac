"""What a hostile or broken experiment leaves: refused in clear words, recorded, never verified."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from invariants import entries, leftovers, violations
from quick import WORKER, Quick, plan

from phases.base.text import utc_now
from phases.record.entries import failing_lines, measured_lines, reason_lines
from phases.record.ledger import EntryKind, Ledger, new_header, parse_ledger, seal_entry
from phases.record.result import ReportedMeasurements

BOMB = """python3 -c 'print("[" * 200000)' > "$PHASES_OUT/result.json" """
NAN = r"""echo '{"measurements": {"total": {"value": NaN}}}' > "$PHASES_OUT/result.json" """
HOSTILE = {
    "undeclared": ('echo x > "$PHASES_OUT/stray.txt"', "stray.txt: written and not declared"),
    "missing": (
        'rm "$PHASES_OUT/result.json"',
        "result.json: declared in the plan and not written",
    ),
    "nothing at all": (
        'rm -r "$PHASES_OUT"/*',
        "result.json: declared in the plan and not written",
    ),
    "a link out": ('ln -sf /etc/passwd "$PHASES_OUT/artifacts/numbers.json"', "a symbolic link"),
    "a hard link": (
        'ln "$PHASES_OUT/artifacts/numbers.json" "$PHASES_OUT/artifacts/b.json"',
        "hard links",
    ),
    "a FIFO": ('mkfifo "$PHASES_OUT/artifacts/f.json"', "a FIFO; expected a regular file"),
    "more than a disk": (
        'truncate -s 70G "$PHASES_OUT/artifacts/big.jsonl"',
        "bytes in all; expected at most",
    ),
    "too much to commit": (
        'head -c 6000000 /dev/zero >> "$PHASES_OUT/result.json"',
        "would be committed",
    ),
    "a hidden folder": ('mkdir "$PHASES_OUT/artifacts/.git"', "hidden files and folders"),
    "a name with a new line": (
        'echo > "$PHASES_OUT/artifacts/a\nb.json"',
        "control, invisible or backslash",
    ),
    "a name that is no UTF-8": (
        'echo > "$PHASES_OUT/artifacts/$(printf "\\377").json"',
        "the name is not UTF-8",
    ),
    "NaN": (NAN, "NaN"),
    "a JSON bomb": (BOMB, "result.json: "),
    "half a result": (
        'head -c 20 "$PHASES_OUT/result.json" > x; mv x "$PHASES_OUT/result.json"',
        "result.json: ",
    ),
    "no UTF-8": ('printf "\\377" > "$PHASES_OUT/result.json"', "result.json: "),
    "a pickle": ('echo x > "$PHASES_OUT/artifacts/model.pkl"', "not an allowed kind of file"),
    "no memory": ('(ulimit -v 100000; python3 -c "bytearray(10**9)")', "ended with exit"),
    "a full disk": ("echo no space left >&2; exit 28", "ended with exit 28"),
    "a writer that outlives its leader": (
        '(while :; do echo x >> "$PHASES_OUT/artifacts/numbers.json"; done) & sleep 0.2',
        "gate ",
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return Quick(tmp_path_factory.mktemp("hostile") / "quick", plan(attempts=100))


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_clear_words(name: str, world: Quick) -> None:
    script, message = HOSTILE[name]
    world.write("worker.sh", f"{WORKER}\n{script}\n")
    world.commit("a hostile worker")
    world.run("run", "--next", code=1)
    last = entries(world.root)[-1]
    assert last.kind in ("ERRORED", "FAILED")
    assert any(message in line for line in last.lines), last.lines
    assert violations(world.root) == []
    assert leftovers(world.root, world.temporary) == []
    assert not (world.root / "results/Q-001/result.json").exists()


def run_measured(quick: Quick) -> tuple[int, int]:
    """Run; return exit code and peak resident bytes of the runner or its largest child."""
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=quick.root,
        env=quick.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _pid, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * 1024


def test_300_megabytes_of_log_leave_memory_flat(quick: Quick, tmp_path: Path) -> None:
    loud = quick.copy(tmp_path / "loud")
    loud.write("worker.sh", f"{WORKER}\nhead -c 300000000 /dev/zero\n")
    loud.commit("a loud worker")
    quiet_code, quiet_peak = run_measured(quick)
    loud_code, loud_peak = run_measured(loud)
    assert (quiet_code, loud_code) == (0, 0)
    assert loud_peak < quiet_peak + 60_000_000, (quiet_peak, loud_peak)
    log = (loud.root / ".phases/logs/Q-001/1.log").read_bytes()
    assert len(log) < 17_000_000
    assert b"bytes dropped here" in log


def test_a_gate_that_hangs_and_leaves_a_daemon_is_ended(quick: Quick, tmp_path: Path) -> None:
    document = plan(gate_timeout_s=1)
    gate = "(setsid sleep 600 > /dev/null 2>&1 &); exec sleep 600"
    document["phases"][0]["features"][0]["gate"] = {"shell": gate}
    hanging = Quick(tmp_path / "hanging", document)
    hanging.run("run", "--next", code=1)
    last = entries(hanging.root)[-1]
    assert last.kind == "ERRORED"
    assert any("timed out after 1 s" in line for line in last.lines)
    assert leftovers(hanging.root, hanging.temporary) == []


def test_a_plan_that_is_edited_while_a_feature_runs_stops_the_next_step(quick: Quick) -> None:
    quick.write("worker.sh", f"{WORKER}\necho >> {quick.root}/prd/plan.json\n")
    quick.commit("an edit meanwhile")
    result = quick.run("run", "--next", code=7)
    assert "prd/plan.json (changed)" in result.stderr
    assert entries(quick.root)[-1].kind == "VERIFIED"  # judged by the plan of its commit
    assert violations(quick.root) == []
    quick.git("checkout", "-q", "prd/plan.json")
    quick.run("run", "--next")
    assert entries(quick.root)[-1].kind == "HALTED"


@pytest.mark.parametrize(
    "message",
    ["", " ", "a line \n", "x" * 299 + " " + "y" * 20],
    ids=["none", "blank", "line end", "cut"],
)
def test_whatever_a_failed_gate_prints_is_recorded(message: str) -> None:
    ledger = Ledger(new_header("Quick"), ())
    lines = [
        *failing_lines([("check", message), (message, message)]),
        *reason_lines([message]),
        *measured_lines(ReportedMeasurements({message: {"value": message, "unit": ""}})),
    ]
    entry = seal_entry(
        ledger,
        EntryKind.FAILED,
        tuple(lines),
        time=utc_now(),
        phase=1,
        feature="Q-001",
        title="Count",
    )
    assert parse_ledger(ledger.data + entry.block).entries == (entry,)


def test_a_gate_that_fails_without_a_message_is_recorded(quick: Quick) -> None:
    quick.write("worker.sh", WORKER.replace("[14]", "[15]"))
    quick.commit("wrong")
    quick.run("run", "--next", code=1)
    assert entries(quick.root)[-1].kind == "FAILED"
