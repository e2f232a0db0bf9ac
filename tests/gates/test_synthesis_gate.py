"""The gate of FEAT-009 passes what follows from the results and sees every lie.

The runner finds it able to fail.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import present
from lab.contract import Measurement, Result
from phases.execution.sandbox import NoSandbox
from phases.judge.gate import judge_feature
from phases.judge.gate_run import GateKind, GateSpec
from tests.gates.conftest import ROOT, failing, run_experiment
from tests.lab.synthesis import track

GATE = "synthesis/test_synthesis.py"
MODULE = "lab.synthesis.experiment"
CONFIG = "lab/synthesis/experiment.yaml"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return track.inputs(tmp_path_factory.mktemp("track"))


@pytest.fixture(scope="module")
def made(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_experiment(MODULE, CONFIG, given, tmp_path_factory.mktemp("made") / "out")


def forged(made: Path, target: Path, edit: Callable[[Path, dict], None]) -> Path:
    """Copy outputs, edit files and result, and seal everything anew, as a careful forger would."""
    shutil.copytree(made, target)
    document = json.loads((target / "result.json").read_text())
    edit(target, document)
    result = Result.from_json(document | {"files": {}, "figures": []})
    figures = [json.loads(path.read_text()) for path in sorted((target / "figures").glob("*.json"))]
    drawn = [
        present.Figure(**(f | {"series": tuple(present.Series(**s) for s in f["series"])}))
        for f in figures
    ]
    present.write(target, result, drawn)
    return target


def test_the_runner_finds_the_gate_able_to_fail_and_every_measurement_judged(
    made: Path, given: Path, tmp_path: Path
) -> None:
    files = [path for path in made.rglob("*") if path.is_file()]
    judgement = judge_feature(
        GateSpec(GateKind.PYTEST, f"gates/{GATE}", 120),
        gates_dir=ROOT,
        out=made,
        outputs={
            path.relative_to(made).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
        inputs_file=given,
        workspace=tmp_path / "workspace",
        env={},
        sandbox=NoSandbox(),
    )
    assert judgement.state == "verified", judgement.reasons
    assert [(item.kind, item.outcome) for item in judgement.mutants if not item.killed] == []
    assert judgement.coverage is not None
    assert set(judgement.coverage.recomputed) == set(
        json.loads((made / "result.json").read_text())["measurements"]
    )


def edit_json(name: str, change: Callable[[dict], None]) -> Callable[[Path, dict], None]:
    def edit(folder: Path, document: dict) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def untouched(folder: Path, document: dict) -> None:
    """The control: what a forger who changes nothing leaves must pass."""


def right_is_another(content: dict) -> None:
    item = next(item for item in content["posed"] if item["choices"])
    item["right"] = (item["right"] + 1) % len(item["choices"])


def rule_is_another(content: dict) -> None:
    next(item for item in content["asked"] if item["rule"] == "largest")["rule"] = "smallest"


def number_is_another(content: dict) -> None:
    item = next(item for item in content["posed"] if not item["choices"])
    item["explanation"] = item["explanation"].replace(" = ", " = 1", 1)


def miss_becomes_hit(folder: Path, document: dict) -> None:
    for name in ("predictions_held", "predictions_missed"):
        document["measurements"][name]["value"] += 1 if name.endswith("held") else -1


def miss_is_not_told(folder: Path, document: dict) -> None:
    document["findings"] = [text for text in document["findings"] if not text.startswith("Missed")]


def outcome_is_shown_otherwise(folder: Path, document: dict) -> None:
    table = next(
        t for t in document["tables"] if t["title"].startswith("Retrospective: what was predicted")
    )
    row = next(row for row in table["rows"] if "MISSED" in row)
    row[row.index("MISSED")] = "HELD"


def choice_is_shown_otherwise(folder: Path, document: dict) -> None:
    table = next(t for t in document["tables"] if t["title"].startswith("Answers"))
    row = next(row for row in table["rows"] if str(row[1]).startswith("b)"))
    row[1] = "a)" + row[1][2:]


def claim_is_another(content: dict) -> None:
    next(item for item in content if item["id"] == "rate")["value"] = 0.001  # type: ignore[index]


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (untouched, None),
        (edit_json("questions.json", right_is_another), "test_answers_follow_from_the_numbers"),
        (edit_json("questions.json", rule_is_another), "test_answers_follow_from_the_numbers"),
        (
            edit_json("questions.json", number_is_another),
            "test_explanations_state_the_numbers_that_decided",
        ),
        (edit_json("predictions.json", claim_is_another), "test_predictions_are_those_of_the_plan"),
        (
            edit_json(
                "sources.json",
                lambda content: content["FEAT-006"].update(receipt="sha256:" + 64 * "f"),
            ),
            "test_sources_are_the_results_that_were_given",
        ),
        (
            edit_json("candidates.json", lambda content: content.reverse()),
            "test_candidates_are_shown_as_they_were_sized",
        ),
        (miss_becomes_hit, "test_number_follows_from_the_results[predictions_missed]"),
        (miss_is_not_told, "test_retrospective_tells_how_each_prediction_fared"),
        (outcome_is_shown_otherwise, "test_retrospective_tells_how_each_prediction_fared"),
        (choice_is_shown_otherwise, "test_tables_show_the_questions_and_the_answers"),
    ],
)  # fmt: skip
def test_a_forger_who_seals_everything_anew_is_seen(
    made: Path, given: Path, tmp_path: Path, edit: Callable[[Path, dict], None], check: str | None
) -> None:
    out = forged(made, tmp_path / "out", edit)
    assert failing(GATE, out, given, "-m", "integrity") == []
    failed = failing(GATE, out, given)
    assert failed == [] if check is None else check in failed


def test_answers_made_from_other_results_are_seen(made: Path, tmp_path: Path) -> None:
    changed = {"FEAT-006.control_gap": Measurement.of_sample([-0.5, -0.52, -0.49], "nats/token")}
    other = track.inputs(tmp_path / "other", changed)
    failed = failing(GATE, made, other, "-m", "not integrity")
    assert "test_sources_are_the_results_that_were_given" in failed
    assert "test_number_follows_from_the_results[predictions_held]" in failed


def test_one_seed_leaves_everything_open_and_passes(tmp_path: Path) -> None:
    """What the smoke profile gives: effects without spread; nothing is decided, which is said."""
    once = {
        place: Measurement.of_sample(found.values[:1], found.unit)
        for feature, names in track.measured().items()
        for name, found in names.items()
        if (place := f"{feature}.{name}") and found.values
    }
    given = track.inputs(tmp_path / "track", once)
    out = run_experiment(MODULE, CONFIG, given, tmp_path / "out")
    found = json.loads((out / "result.json").read_text())
    assert found["measurements"]["candidates_decided"]["value"] == 0
    assert found["measurements"]["minimum_experiment_seeds"]["value"] is None
    assert "was decided by these runs" in found["findings"][0]
    assert failing(GATE, out, given) == []
