"""What a hostile or broken experiment leaves: refused in a clear word, recorded, and never verified."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from invariants import entries, leftovers, violations
from quick import WORKER, Quick, plan

from phases.base.text import utc_now
from phases.record import entries as recorded
from phases.record.ledger import Ledger, new_header, parse_ledger, seal_entry

BOMB = """python3 -c 'print("[" * 200000)' > "$PHASES_OUT/result.json" """
HOSTILE = {
    "undeclared": ('echo x > "$PHASES_OUT/stray.txt"', "stray.txt: written and not declared"),
    "missing": ('rm "$PHASES_OUT/result.json"', "result.json: declared in the PRD and not written"),
    "nothing at all": ('rm -r "$PHASES_OUT"/*', "result.json: declared in the PRD and not written"),
    "a link out": ('ln -sf /etc/passwd "$PHASES_OUT/artifacts/numbers.json"', "a symbolic link"),
    "a hard link": (
        'ln "$PHASES_OUT/artifacts/numbers.json" "$PHASES_OUT/artifacts/b.json"',
        "hard links",
    ),
    "a FIFO": ('mkfifo "$PHASES_OUT/artifacts/f.json"', "a FIFO; wanted a regular file"),
    "more than a disk": (
        'truncate -s 70G "$PHASES_OUT/artifacts/big.jsonl"',
        "bytes in all; at most",
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
    "NaN": (
        'echo "{\\"measurements\\": {\\"total\\": {\\"value\\": NaN}}}" > "$PHASES_OUT/result.json"',
        "NaN",
    ),
    "a JSON bomb": (BOMB, "result.json: "),
    "half a result": (
        'head -c 20 "$PHASES_OUT/result.json" > x; mv x "$PHASES_OUT/result.json"',
        "result.json: ",
    ),
    "no UTF-8": ('printf "\\377" > "$PHASES_OUT/result.json"', "result.json: "),
    "a pickle": ('echo x > "$PHASES_OUT/artifacts/model.pkl"', "not a kind of file that is kept"),
    "no memory": ('(ulimit -v 100000; python3 -c "bytearray(10**9)")', "ended with exit"),
    "a full disk": ("echo no space left >&2; exit 28", "ended with exit 28"),
    "a writer that lives on": (
        '(while :; do echo x >> "$PHASES_OUT/artifacts/numbers.json"; done) & sleep 0.2',
        "gate ",
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return Quick(tmp_path_factory.mktemp("hostile") / "quick", plan(attempts=100))


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_a_clear_word(name: str, world: Quick) -> None:
    deed, word = HOSTILE[name]
    world.write("worker.sh", f"{WORKER}\n{deed}\n")
    world.run("run", "--next", code=1)
    last = entries(world.root)[-1]
    assert last.kind in ("ERRORED", "FAILED")
    assert any(word in fact for fact in last.facts), last.facts
    assert violations(world.root) == []
    assert leftovers(world.root, world.temporary) == []
    assert not (world.root / "results/Q-001/result.json").exists()


def peak(quick: Quick) -> tuple[int, int]:
    """Exit code and peak resident bytes of a run, its children left out of neither."""
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"], cwd=quick.root, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=quick.environment(), start_new_session=True,
    )  # fmt: skip
    _pid, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, used.ru_maxrss * 1024


def test_300_megabytes_of_log_leave_memory_flat(quick: Quick, tmp_path: Path) -> None:
    loud = quick.copy(tmp_path / "loud")
    loud.write("worker.sh", f"{WORKER}\nhead -c 300000000 /dev/zero\n")
    (quiet_code, quiet), (loud_code, much) = peak(quick), peak(loud)
    assert (quiet_code, loud_code) == (0, 0)
    assert much < quiet + 60_000_000, (quiet, much)
    log = (loud.root / ".phases/logs/Q-001/1.log").stat().st_size
    assert log < 17_000_000
    assert b"bytes dropped here" in (loud.root / ".phases/logs/Q-001/1.log").read_bytes()


def test_a_gate_that_hangs_and_leaves_a_daemon_is_ended(quick: Quick, tmp_path: Path) -> None:
    document = plan(gate_timeout_s=1)
    document["phases"][0]["features"][0]["gate"] = {
        "shell": "(setsid sleep 600 > /dev/null 2>&1 &); exec sleep 600"
    }  # fmt: skip
    hanging = Quick(tmp_path / "hanging", document)
    hanging.run("run", "--next", code=1)
    last = entries(hanging.root)[-1]
    assert last.kind == "ERRORED"
    assert any("timed out after 1 s" in fact for fact in last.facts)
    assert leftovers(hanging.root, hanging.temporary) == []


def test_a_plan_that_is_edited_while_a_feature_runs_stops_it(quick: Quick) -> None:
    quick.write("worker.sh", f"{WORKER}\necho >> prd/plan.json\n")
    refused = quick.run("run", "--next", code=7)
    assert "prd/plan.json (changed)" in refused.stderr
    assert entries(quick.root)[-1].kind == "INTERRUPTED"
    assert violations(quick.root) == []
    quick.git("checkout", "-q", "prd/plan.json")
    quick.write("worker.sh", WORKER)
    quick.run("run", "--next")


@pytest.mark.parametrize(
    "words", ["", " ", "said \n", "x" * 299 + " " + "y" * 20], ids=["none", "blank", "end", "cut"]
)
def test_whatever_a_gate_says_its_no_is_recorded(words: str) -> None:
    ledger = Ledger(new_header("Quick"), ())
    lines = [*recorded.failing([("check", words), (words, words)]), *recorded.reasons([words])]
    lines += recorded.found({words: {"value": words, "unit": ""}})
    entry = seal_entry(
        ledger, "FAILED", tuple(lines), time=utc_now(), phase=1, feature="Q-001", title="Count"
    )
    assert parse_ledger(ledger.data + entry.block).entries == (entry,)


def test_a_gate_that_says_no_without_a_word_is_recorded(quick: Quick) -> None:
    quick.write("worker.sh", WORKER.replace("[14]", "[15]"))
    quick.run("run", "--next", code=1)
    assert entries(quick.root)[-1].kind == "FAILED"
