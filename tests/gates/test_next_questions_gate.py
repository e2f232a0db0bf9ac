"""The gate of FEAT-020 passes what follows from the results, and sees every lie about it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gates.synthesis.next_questions import planned
from lab.config import load_config
from lab.contract import Measurement
from tests.gates import warm
from tests.gates.conftest import ROOT, assert_judges_every_measurement, failing, run_experiment
from tests.lab.synthesis import next_inputs

GATE = "synthesis/next_questions/test_next_questions.py"
MODULE = "lab.synthesis.next_questions.experiment"
CONFIG = "lab/synthesis/next_questions/experiment.yaml"
CANDIDATES = "test_candidates_follow_from_the_results"
FINDINGS = "test_findings_are_made_from_the_numbers"
TABLES = "test_tables_are_made_from_the_candidates"
ENTRY = "test_plan_entry_is_the_best_candidate"
FIGURE = "test_figure_shows_what_the_first_cost"

Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return outputs and the file of their inputs."""
    folder = tmp_path_factory.mktemp("next")
    inputs = next_inputs.write_inputs(folder)
    return run_experiment(MODULE, CONFIG, inputs, folder / "out"), inputs


def test_the_runner_finds_the_gate_able_to_fail_and_every_measurement_judged(
    judged: tuple[Path, Path], gates_dir: Path
) -> None:
    assert_judges_every_measurement(GATE, *judged, gates_dir)


def test_the_gate_has_the_settings_of_the_config() -> None:
    assert load_config(ROOT / CONFIG, "cpu") == planned.settings()


@pytest.mark.parametrize(
    ("without", "changes"),
    [
        (("FEAT-017",), {}),
        (("FEAT-006", "FEAT-017"), {}),
        (tuple(next_inputs.FEATURES), {}),
        ((), {"FEAT-006.optimum_shift": Measurement.of_sample((0.9, 0.91, 0.92), "")}),
        ((), {"FEAT-011.copy_loss": Measurement.of_estimate(0.52, "s", stderr=0.0, n=4)}),
    ],
    ids=["no models of cost", "only texts", "nothing at all", "decided", "no spread"],
)
def test_what_follows_from_other_results_passes_too(
    tmp_path: Path, without: tuple[str, ...], changes: dict[str, Measurement]
) -> None:
    inputs = next_inputs.write_inputs(tmp_path, without=without, changes=changes)
    out = run_experiment(MODULE, CONFIG, inputs, tmp_path / "out")
    assert failing(GATE, out, inputs) == []


def edited(copy: Path, name: str, edit: Edit) -> None:
    """Edit a JSON file of a copy of the outputs."""
    document = json.loads((copy / name).read_text())
    edit(document)
    (copy / name).write_text(json.dumps(document))


def best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return rows[0]


def of_kind(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(row for row in rows if row["kind"] == kind)


LIES: list[tuple[str, Edit, str]] = [
    ("candidates.json", lambda rows: rows.reverse(), CANDIDATES),
    ("candidates.json", lambda rows: rows.pop(), CANDIDATES),
    ("candidates.json", lambda rows: best(rows)["cost"].update(seconds=1.0), CANDIDATES),
    ("candidates.json", lambda rows: best(rows).update(bits=0.5), CANDIDATES),
    ("candidates.json", lambda rows: of_kind(rows, "open")["repeats"].update(needed=4), CANDIDATES),
    (
        "candidates.json",
        lambda rows: of_kind(rows, "missed")["expected"].update(comparator="<="),
        CANDIDATES,
    ),
    (
        "candidates.json",
        lambda rows: of_kind(rows, "missed")["change"].update(word="words"),
        CANDIDATES,
    ),
    (
        "candidates.json",
        lambda rows: best(rows).update(question=best(rows)["question"].replace("really", "not")),
        CANDIDATES,
    ),
    ("plan_entry.json", lambda entry: entry["expect"].update(minutes=1), ENTRY),
    ("plan_entry.json", lambda entry: entry.update(id="FEAT-006"), ENTRY),
    ("plan_entry.json", lambda entry: entry["predictions"][0].update(value=3), ENTRY),
    ("plan_entry.json", lambda entry: entry.update(timeout_s=1), ENTRY),
    (
        "figures/next_questions.json",
        lambda figure: figure["series"][0]["y"].__setitem__(0, 0.5),
        FIGURE,
    ),
    (
        "figures/next_questions.json",
        lambda figure: figure.update(
            caption=figure["caption"].replace("most per hour", "least per hour")
        ),
        FIGURE,
    ),
    ("result.json", lambda result: result["findings"].pop(1), FINDINGS),
    ("result.json", lambda result: result["tables"][2]["rows"][0].__setitem__(2, "HELD"), TABLES),
    ("result.json", lambda result: result["tables"][0]["rows"][0].__setitem__(4, "1.0 s"), TABLES),
    (
        "result.json",
        lambda result: result["environment"]["receipts"].update({"FEAT-006": "sha256:0"}),
        "test_receipts_are_those_that_were_given",
    ),
    (
        "result.json",
        lambda result: result["environment"]["config"].update(most_repeats=3),
        "test_settings_are_those_that_were_reviewed",
    ),
]


@pytest.mark.parametrize(("name", "edit", "check"), LIES)
def test_a_lie_is_seen(
    judged: tuple[Path, Path], tmp_path: Path, name: str, edit: Edit, check: str
) -> None:
    copy = Path(shutil.copytree(judged[0], tmp_path / "copy"))
    edited(copy, name, edit)
    assert warm.fails(check, GATE, copy, judged[1])
