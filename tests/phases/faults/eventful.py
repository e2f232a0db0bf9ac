"""A repository in which everything happened that a record can state, by honest users.

Phase 1: Q-001 is a command with config, inputs (tracked and cached), published copy, exempt file
and predictions; Q-002 is a module that needs it, and was ERRORED and FAILED before. Phase 2: Q-003
fails by a pytest gate and is waived with Q-005, which needs it; the exit gates fail; Q-004, which
starts a program that git ignores, is run again; the phase is rejected, run again, relocked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from quick import Quick, feature
from terminal_user import as_asked, at_terminal

WORKER = r"""
set -e
mkdir "$PHASES_OUT/artifacts"
printf '[14]\n' > "$PHASES_OUT/artifacts/numbers.json"
printf '# Numbers\n\nfive of them\n' > "$PHASES_OUT/note.md"
printf 'drawn\n' > "$PHASES_OUT/extra.txt"
result='{"measurements": {"total": {"value": 14, "unit": "", "exact": true}, "seconds": 3}}'
printf '%s\n' "$result" > "$PHASES_OUT/result.json"
echo touched >> experiment.log
"""
MODULE = """
import json, os, pathlib
from tools import help
from namespace import names

out = pathlib.Path(os.environ["PHASES_OUT"])
mode = pathlib.Path(__file__).with_name("mode").read_text().strip()
if mode == "crash":
    raise SystemExit("no luck today")
total = {"wrong": 15}.get(mode, 14)
(out / "numbers.json").write_text(json.dumps([14]))
measurements = {"total": {"value": total, "unit": "", "exact": True}}
(out / "result.json").write_text(json.dumps({"measurements": measurements}))
"""
PHASE_2_WORKER = r"""
set -e
total=$(cat total)
printf '[%s]\n' "$total" > "$PHASES_OUT/numbers.json"
result='{"measurements": {"total": {"value": '$total', "unit": "", "exact": true}}}'
printf '%s\n' "$result" > "$PHASES_OUT/result.json"
"""
FILES = {
    "worker.sh": WORKER,
    "second.sh": PHASE_2_WORKER,
    "total": "15\n",
    "exp/__init__.py": "",
    "exp/main.py": MODULE,
    "exp/mode": "crash\n",
    "tools/__init__.py": "",
    "tools/help.py": "",
    "namespace/names.py": "",
    "gates/helper.py": "LIMIT = 10\n",
    ".gitignore": ".phases/\nbin/\ncache/\n",
    "settings.yaml": "rate: 1\n",
    "data/words.txt": "three short words\n",
    "gates/test_small.py": """
import json, os, pathlib

def total():
    result = json.loads((pathlib.Path(os.environ["PHASES_OUT"]) / "result.json").read_text())
    return result["measurements"]["total"]["value"]

def test_small():
    assert total() < 10, "much too large"

def test_number():
    assert total() == 15
""",
}
BIG = "pinned\n"
BIG_SHA256 = hashlib.sha256(BIG.encode()).hexdigest()
"""Of the file of the cached input that the plan names; the cache has another one besides."""
GATE = " && ".join(
    (
        "test \"$(cat artifacts/numbers.json)\" = '[14]'",
        "test \"$(tr '\\n' ' ' < note.md)\" = '# Numbers  five of them '",
        "grep -Eq '\"value\": ?14[,}]' result.json",
    )
)
SAME_TOTAL = (
    "test -s result.json && test \"$(tr -d '[] \\n' < numbers.json)\" = "
    '"$(sed -E \'s/.*"value": ?([-0-9.]+)[,}].*/\\1/\' result.json)"'
)
FOURTEEN = "grep -Eq '\"value\": ?14[,}]'"
EXIT_GATES = {
    1: f"{FOURTEEN} Q-001/result.json && {FOURTEEN} Q-002/result.json",
    2: f"{FOURTEEN} Q-004/result.json",
}


def eventful_plan() -> dict[str, Any]:
    """Return the plan."""
    total = {"measurement": "total", "comparator": "==", "value": 14}
    predictions = [
        {"id": "fourteen", "claim": "the total is 14", **total},
        {"id": "tiny", "claim": "the total is 1", **total, "value": 1},
    ]
    outputs = ["result.json", "numbers.json"]
    first = feature(
        1,
        config="settings.yaml",
        inputs=["words", "big"],
        outputs=["result.json", "artifacts/**", "note.md", "extra.txt"],
        publish={"note.md": "docs/note.md"},
        exempt=[{"files": "extra.txt", "reason": "drawn at random"}],
        predictions=predictions,
        gate={"shell": GATE},
        seed=3,
        profile="small",
    )
    second = feature(
        2,
        needs=["Q-001"],
        module="exp.main",
        config="settings.yaml",
        outputs=outputs,
        predictions=predictions[:1],
        gate={"shell": GATE.partition(" && ")[0].replace("artifacts/", "") + " && " + SAME_TOTAL},
    )
    del second["command"]
    shell = {"command": "bin/run second.sh", "outputs": outputs}
    small = {"pytest": "gates/test_small.py"}
    second_phase = [
        feature(3, **shell, gate=small),
        feature(4, **shell, gate={"shell": SAME_TOTAL}, predictions=predictions),
        feature(5, **shell, gate={"shell": SAME_TOTAL}, needs=["Q-003"]),
    ]
    return {
        "schema": 1,
        "project": "Eventful",
        "results": "results",
        "defaults": {
            "timeout_s": 60,
            "gate_timeout_s": 60,
            "attempts": 9,
            "env": {"FLAVOUR": "plain"},
        },
        "inputs": [
            {"name": "words", "path": "data"},
            {"name": "big", "path": "$PHASES_CACHE/big", "sha256": {"pinned.txt": BIG_SHA256}},
        ],
        "phases": [
            {
                "id": 1,
                "name": "Counting",
                "features": [first, second],
                "exit": [{"shell": EXIT_GATES[1]}],
            },
            {
                "id": 2,
                "name": "Judging",
                "features": second_phase,
                "exit": [{"shell": EXIT_GATES[2]}],
            },
        ],
    }


def change(quick: Quick, path: str, text: str) -> None:
    """Commit a file as a user does."""
    quick.write(path, text)
    quick.git("add", path)
    quick.git("commit", "-q", "-m", f"{path} changes", "--", path)


def environment_of(quick: Quick) -> dict[str, str]:
    """Return the variables of every command of the repository's user."""
    cache = quick.root / "cache"
    variables = {"TMPDIR": str(quick.temporary), "COVERAGE_PROCESS_START": ""}
    return {**variables, "PHASES_CACHE": str(cache)}


def decide(quick: Quick, *words: str) -> None:
    """Decide at a terminal."""
    code, screen = at_terminal(quick.root, *words, answer=as_asked, env=environment_of(quick))
    assert code == 0, screen


def run(quick: Quick, *words: str, code: int = 0, **env: str) -> None:
    """Run `run`."""
    quick.run("run", *words, code=code, env={**environment_of(quick), **env})


def make_eventful(root: Path) -> Quick:
    """Return the repository, made and run as the docstring of this module says."""
    quick = Quick(root, eventful_plan())
    for path, text in FILES.items():
        quick.write(path, text)
    quick.commit("its code")
    quick.write("bin/run", '#!/bin/sh\nexec sh "$@"\n')
    (root / "bin/run").chmod(0o755)
    for name in ("pinned.txt", "more.txt"):
        file = root / "cache" / "big" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(BIG)

    # 1. Phase 1: ERRORED, FAILED, VERIFIED, HALTED, APPROVED.
    run(quick, "--next", code=1)
    change(quick, "exp/mode", "wrong\n")
    run(quick, "--next", code=1)
    change(quick, "exp/mode", "good\n")
    run(quick, "--next")
    decide(quick, "approve", "1")

    # 2. Phase 2: FAILED, WAIVED, exit gates that fail, a repeated attempt, HALTED.
    run(quick, "--next", code=1)
    decide(quick, "approve", "2", "--waive", "Q-003", "--reason", "no such number")
    run(quick, "--next", code=1)
    change(quick, "total", "14\n")
    run(quick, "--feature", "Q-004", "--force")

    # 3. Rejected, run again, interrupted on the way; relocked.
    decide(quick, "reject", "2", "--feature", "Q-004", "--reason", "count once more")
    run(quick, "--next", code=-9, PHASES_FAILPOINT="started:kill")
    run(quick, "--next")
    document = json.loads((quick.root / "prd/plan.json").read_text())
    document["phases"][1]["features"][1]["title"] = "Count 4 again"
    change(quick, "prd/plan.json", json.dumps(document, indent=1))
    decide(quick, "relock", "2", "--reason", "a better title")
    return quick
