"""A random plan of quick features, and what honest people change in it."""

from __future__ import annotations

import random
from typing import Any

from quick import feature

WORKER = r"""
set -e
hang=$(cat "${PWD%%.tmp/*}.mode" 2>/dev/null || echo no)
mode=$(cat "modes/$1" 2>/dev/null || echo good)
total=14
printf '{"done": 1, "total": 2, "note": "counting"}\n' >> "$PHASES_EVENTS"
case "$hang" in
hang) sleep 600 ;;
esac
case "$mode" in
crash) echo no luck today >&2; exit 3 ;;
wrong) total=15 ;;
esac
mkdir "$PHASES_OUT/artifacts"
printf '[14]\n' > "$PHASES_OUT/artifacts/numbers.json"
result='{"measurements": {"total": {"value": '$total', "unit": "", "exact": true}}}'
printf '%s\n' "$result" > "$PHASES_OUT/result.json"
echo counted "$total"
"""
"""As quick.WORKER; the committed file modes/ID makes the feature ID fail."""

MODES = ("crash", "wrong")
"""The first ends in ERRORED, the second in FAILED."""
EXIT_GATE = {
    "shell": 'for file in */result.json; do grep -Eq \'"value": ?14[,}]\' "$file" || exit 1; done'
}
WORDS = ("Count", "Zählen", "größer", "数える", "漢字", "naïve", "two words", "x < y & z", "100 %")
ATTEMPTS = 3


def random_plan(chance: random.Random) -> dict[str, Any]:
    """Return a plan of 1 to 3 phases with 1 to 3 features each."""
    number = 0
    phases: list[dict[str, Any]] = []
    for phase_id in range(1, chance.randint(1, 3) + 1):
        features = []
        for _ in range(chance.randint(1, 3)):
            number += 1
            features.append(random_feature(chance, number))
        phases.append(random_phase(chance, phase_id, features))
    return {
        "schema": 1,
        "project": random_name(chance),
        "results": chance.choice(["results", "lab/results"]),
        "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": ATTEMPTS},
        "phases": phases,
    }


def random_feature(chance: random.Random, number: int) -> dict[str, Any]:
    """Return the feature of this number; it may need any earlier one."""
    name = f"Q-{number:03d}"
    needs = [f"Q-{other:03d}" for other in range(1, number) if chance.random() < 1 / 4]
    publish = {}
    if chance.random() < 1 / 3:
        publish = {"result.json": f"docs/{name}.json"}
    return feature(
        number,
        title=f"{random_name(chance)} {number}",
        command=f"sh worker.sh {name}",
        needs=needs,
        publish=publish,
    )


def random_phase(
    chance: random.Random, phase_id: int, features: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a phase of these features, with or without entry and exit gates."""
    phase: dict[str, Any] = {"id": phase_id, "name": random_name(chance), "features": features}
    if chance.random() < 1 / 2:
        phase["exit"] = [EXIT_GATE]
    if chance.random() < 1 / 3:
        phase["entry"] = [{"shell": "test -s worker.sh"}]
    return phase


def random_name(chance: random.Random) -> str:
    """Return one to three words."""
    return " ".join(chance.sample(WORDS, chance.randint(1, 3)))


def add_prediction(chance: random.Random, item: dict[str, Any]) -> str:
    """Add a prediction to a feature; return what was done."""
    predictions = item.setdefault("predictions", [])
    prediction = {
        "id": f"p{len(predictions)}",
        "claim": f"the total is small, {random_name(chance)}",
        "measurement": "total",
        "comparator": chance.choice(["==", "<"]),
        "value": chance.choice([14, 20]),
    }
    predictions.append(prediction)
    return f"a prediction of {item['id']}"
