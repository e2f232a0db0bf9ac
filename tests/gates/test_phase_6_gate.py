"""The exit gate of phase 6 passes a site, a reproduction and questions that fit the plan.

It sees pages, outcomes, ranks and counts that were changed, also where the result says the same.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lab import present
from lab.contract import Measurement, Result
from lab.synthesis.reproduction.measured import ComparedRow, Outcome
from tests.gates.conftest import assert_able_to_fail_for_each, failing

GATE = "phase_6/test_phase_6.py"
SITE, REPRODUCTION, NEXT = "FEAT-018", "FEAT-019", "FEAT-020"
FEATURES = (SITE, REPRODUCTION, NEXT)
WORDS = "one two three four five six"
ASSURANCE = "assurance: scripted (sample run, approved by no human)"
PAGE = "<meta content=\"default-src 'none'\"><p>{}</p>"
PLAN = {
    "phases": [
        {
            "features": [
                {"id": "FEAT-001", "predictions": [{}, {}, {}]},
                {"id": "FEAT-002", "predictions": [{}]},
                {"id": "FEAT-003"},
                {"id": "FEAT-004", "predictions": [{}]},
                {"id": SITE, "predictions": [{}, {}]},
                {"id": REPRODUCTION, "predictions": [{}]},
                {"id": NEXT, "predictions": [{}]},
            ]
        }
    ]
}
EARLIER = ("FEAT-001", "FEAT-002", "FEAT-003", "FEAT-004")
exact = Measurement.of_exact


def write(folder: Path, measurements: dict[str, Measurement]) -> None:
    """Write result and report of a feature, whose other files are there."""
    result = Result(
        experiment="lab.synthesis",
        title="Synthesis",
        question=WORDS,
        hypothesis=WORDS,
        method=WORDS,
        headline=(),
        measurements=measurements,
        findings=("It is so.",),
    )
    present.write(folder, result)


def write_site(folder: Path, *, assurance: str = "") -> None:
    """Write a site of the earlier features."""
    site = folder / "artifacts/site"
    site.mkdir(parents=True, exist_ok=True)
    for name in ("index", "explorer", "attention", *EARLIER):
        (site / f"{name}.html").write_text(PAGE.format(assurance))
    write(
        folder,
        {
            "pages": exact(7),
            "features": exact(4),
            "predictions": exact(5),
            "predictions_held": exact(3),
            "predictions_missed": exact(1),
            "predictions_inconclusive": exact(1),
        },
    )


def row(outcome: Outcome, difference: float, *, is_promised: bool) -> dict[str, Any]:
    """Return a compared row as it is stored."""
    compared = ComparedRow(
        quantity="losses",
        file="artifacts/steps.safetensors",
        part=("loss",),
        indices=None,
        is_deterministic=is_promised,
        tolerance=0.01,
        reason="float32 sums in another order",
        values=4,
        is_promised=is_promised,
        difference=difference,
        outcome=outcome,
        stored_sha256="a" * 64,
        recomputed_sha256=("b" if difference else "a") * 64,
    )
    return asdict(compared)


ROWS = {
    "FEAT-001": [
        row(Outcome.EQUAL, 0.0, is_promised=True),
        row(Outcome.DIFFERENT, 0.001, is_promised=True),
    ],
    "FEAT-003": [
        row(Outcome.WITHIN, 0.001, is_promised=False),
        row(Outcome.WITHIN, 0.01, is_promised=False),
        row(Outcome.DIFFERENT, 0.02, is_promised=False),
    ],
    "FEAT-004": [row(Outcome.EQUAL, 0.0, is_promised=False)],
}


def write_reproduction(folder: Path) -> None:
    """Write the reproduction of three earlier features."""
    replays = folder / "artifacts/replays"
    replays.mkdir(parents=True, exist_ok=True)
    for feature, rows in ROWS.items():
        (replays / f"{feature}.json").write_text(json.dumps({"rows": rows}))
    draw = {
        "candidates": [{"feature": name} for name in (*EARLIER, SITE)],
        "drawn": [{"feature": name} for name in ROWS],
    }
    (folder / "artifacts/draw.json").write_text(json.dumps(draw))
    write(
        folder,
        {
            "features_drawn": exact(3),
            "rows": exact(6),
            "rows_not_reproduced": exact(2),
            "rows_bit_equal": exact(2),
            "rows_within_tolerance": exact(2),
        },
    )


def candidate(rank: int, kind: str, feature: str, per_hour: float | None) -> dict[str, Any]:
    """Return a candidate for a next experiment as it is stored."""
    cost = None if per_hour is None else {"seconds": 60}
    return {
        "rank": rank,
        "kind": kind,
        "feature": feature,
        "bits_per_hour": per_hour,
        "cost": cost,
    }


def write_next(folder: Path) -> None:
    """Write what to ask next."""
    folder.mkdir(parents=True, exist_ok=True)
    candidates = [
        candidate(1, "missed", "FEAT-001", 30.0),
        candidate(2, "wide", SITE, 4.0),
        candidate(3, "open", "FEAT-002", 0.5),
        candidate(4, "open", "FEAT-002", None),
    ]
    (folder / "candidates.json").write_text(json.dumps(candidates))
    write(
        folder,
        {
            "predictions": exact(8),
            "candidates": exact(4),
            "candidates_missed": exact(1),
            "candidates_wide": exact(1),
            "out_of_reach": exact(1),
        },
    )


def write_phase(folder: Path, plan: dict[str, Any], assurance: str = "") -> tuple[Path, Path]:
    """Write outputs and inputs of the phase, and return both."""
    write_site(folder / "out" / SITE, assurance=assurance)
    write_reproduction(folder / "out" / REPRODUCTION)
    write_next(folder / "out" / NEXT)
    (folder / "plan.json").write_text(json.dumps(plan))
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps({"plan": {"kind": "input", "path": str(folder / "plan.json")}}))
    return folder / "out", inputs


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_phase(tmp_path_factory.mktemp("phase"), PLAN)


@pytest.fixture
def copy(phase: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase[0], tmp_path / "out"))


def failures(out: Path, inputs: Path) -> list[str]:
    """Return the checks that fail beside those that compare digests."""
    return failing(GATE, out, inputs, "-m", "not integrity")


@pytest.mark.parametrize("waived", ["", NEXT, f"{REPRODUCTION} {NEXT}", f"{SITE} {NEXT}"])
def test_the_runner_finds_the_exit_gate_able_to_fail(
    phase: tuple[Path, Path], gates_dir: Path, waived: str
) -> None:
    folder, inputs = phase
    assert_able_to_fail_for_each(GATE, folder, inputs, gates_dir, features=FEATURES, waived=waived)


def test_a_sample_says_so_on_every_page(phase: tuple[Path, Path], tmp_path: Path) -> None:
    out, inputs = write_phase(tmp_path, PLAN | {"sample": True}, ASSURANCE)
    assert failures(out, inputs) == []
    out, inputs = write_phase(tmp_path / "silent", PLAN | {"sample": True})
    assert failures(out, inputs) == [PAGES]
    out, inputs = write_phase(tmp_path / "boastful", PLAN, ASSURANCE)
    assert failures(out, inputs) == [PAGES]


PAGES = "test_site_loads_nothing_from_elsewhere_and_names_its_assurance"
SCORES = "test_site_shows_each_prediction_of_its_features"
ROWS_OF = "test_reproduction_counts_the_rows_of_what_was_drawn"
RANKED = "test_next_questions_are_ranked_by_what_they_tell_per_hour"
PREDICTIONS = "test_next_questions_are_about_all_predictions_so_far"


def remove_a_page(out: Path) -> None:
    (out / SITE / "artifacts/site/FEAT-002.html").unlink()


def load_a_script(out: Path) -> None:
    page = out / SITE / "artifacts/site/index.html"
    page.write_text(page.read_text() + '<script src="https://example.org/x.js"></script>')


def drop_the_policy(out: Path) -> None:
    (out / SITE / "artifacts/site/explorer.html").write_text("<p>no policy</p>")


def edit(out: Path, name: str, change: Callable[[Any], None]) -> None:
    path = out / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def forgive_a_row(out: Path) -> None:
    name = f"{REPRODUCTION}/artifacts/replays/FEAT-001.json"
    edit(out, name, lambda document: document["rows"][1].update(is_promised=False))


def leave_a_row_out(out: Path) -> None:
    name = f"{REPRODUCTION}/artifacts/replays/FEAT-003.json"
    edit(out, name, lambda document: document["rows"].pop())


def draw_one_twice(out: Path) -> None:
    name = f"{REPRODUCTION}/artifacts/draw.json"
    edit(out, name, lambda document: document["drawn"][0].update(feature="FEAT-004"))


def change_the_order(out: Path) -> None:
    edit(out, f"{NEXT}/candidates.json", lambda rows: rows.reverse())


def ask_about_no_feature(out: Path) -> None:
    edit(out, f"{NEXT}/candidates.json", lambda rows: rows[0].update(feature="FEAT-099"))


def forget_a_prediction(out: Path) -> None:
    def change(document: Any) -> None:
        document["measurements"]["predictions"]["value"] -= 1

    edit(out, f"{NEXT}/result.json", change)


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (remove_a_page, {SCORES}),
        (load_a_script, {PAGES}),
        (drop_the_policy, {PAGES}),
        (forgive_a_row, {ROWS_OF}),
        (leave_a_row_out, {ROWS_OF}),
        (draw_one_twice, {ROWS_OF}),
        (change_the_order, {RANKED}),
        (ask_about_no_feature, {RANKED}),
        (forget_a_prediction, {PREDICTIONS}),
    ],
)
def test_what_was_changed_is_seen(
    phase: tuple[Path, Path], copy: Path, change: Callable[[Path], None], checks: set[str]
) -> None:
    change(copy)
    assert set(failures(copy, phase[1])) == checks


def test_an_honest_phase_passes(phase: tuple[Path, Path]) -> None:
    assert failing(GATE, *phase) == []


def test_a_phase_of_which_all_was_waived_does_not_pass(
    copy: Path, phase: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gates.phase_6.test_phase_6 as gate

    monkeypatch.setattr(gate, "FEATURES", ())
    with pytest.raises(AssertionError, match="every feature of the phase was waived"):
        gate.test_at_least_one_feature_was_verified()
