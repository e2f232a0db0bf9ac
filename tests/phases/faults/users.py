"""What the users of a quick repository do between runs, and how they come to its end."""

from __future__ import annotations

import json
import random
from pathlib import Path

from honest_plan import WORKER, add_prediction
from quick import Quick, plan
from situation import PLAN, Situation


def new_repository(folder: Path, *, phases: int) -> Quick:
    """Return a repository with one feature a phase; the committed file modes/ID makes ID fail."""
    document = plan(phases=phases, attempts=50)
    for phase in document["phases"]:
        for item in phase["features"]:
            item["command"] = f"sh worker.sh {item['id']}"
    quick = Quick(folder, document)
    commit_file(quick, "worker.sh", WORKER)
    return quick


def commit_file(quick: Quick, name: str, text: str) -> None:
    """Write one file of the user's and commit it."""
    quick.write(name, text)
    quick.git("add", name)
    quick.git("commit", "-q", "--allow-empty", "-m", name, "--", name)


def fix(quick: Quick) -> None:
    """Commit the fix of everything that fails."""
    if (quick.root / "modes").exists():
        quick.git("rm", "-r", "-q", "modes")
        quick.git("commit", "-q", "-m", "fixed", "--", "modes")


def change_plan(quick: Quick, chance: random.Random) -> None:
    """Commit a prediction for the open phase: after its first outcome a relock is due."""
    now = Situation(quick)
    phase = now.plan["phases"][now.open_phase["id"] - 1]
    add_prediction(chance, phase["features"][0])
    commit_file(quick, PLAN, json.dumps(now.plan, indent=1))


def decision_to_go_on(quick: Quick, now: Situation) -> tuple[str, ...]:
    """Return the decision that is due on the way to an end where all is verified, or nothing.

    What fails is fixed first.
    """
    if now.open_phase is None:
        return ()
    number, reason = str(now.open_phase["id"]), ("--reason", "to go on")
    waived = now.features("waived")
    if now.has_changed:
        return ("relock", number, *reason)
    if now.features("failed", "errored"):
        fix(quick)
        return ("relock", number, *reason)
    if now.waits and waived:
        fix(quick)
        return ("reject", number, "--feature", waived[0], *reason)
    if now.waits:
        return ("approve", number)
    return ()
