"""Gates of FEAT-002 to FEAT-004: they pass honest outputs and see consistent lies too."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import present
from lab.contract import Result
from tests.gates.conftest import (
    INTEGRITY_CHECKS,
    assert_judges_every_measurement,
    failing,
    run_experiment,
)
from tests.soak import mark_soak

FEATURES = ("documentation", "questions", "template")


@pytest.mark.parametrize("name", mark_soak(FEATURES, short={"questions"}))
def test_the_runner_finds_the_gate_able_to_fail_and_every_measurement_judged(
    name: str, outputs_of: Callable[[str], Path], inputs: Path, gates_dir: Path
) -> None:
    gate = f"{name}/test_{name}.py"
    assert_judges_every_measurement(gate, outputs_of(name), inputs, gates_dir)


def forged(out: Path, target: Path, edit: Callable[[dict], None]) -> Path:
    """Copy outputs, edit the result, and seal everything again, as a careful forger would."""
    shutil.copytree(out, target)
    document = json.loads((target / "result.json").read_text())
    edit(document)
    result = replace(Result.from_json(document), figures=(), files={})
    figures = []
    for path in sorted((target / "figures").glob("*.json")):
        data = json.loads(path.read_text())
        data["series"] = tuple(present.Series(**series) for series in data["series"])
        figures.append(present.Figure(**data))
    present.write(target, result, figures)
    return target


@pytest.mark.parametrize("name", mark_soak(FEATURES, short={"documentation", "questions"}))
def test_a_forger_who_seals_everything_again_is_seen(
    name: str, outputs_of: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    gate = f"{name}/test_{name}.py"
    untouched = forged(outputs_of(name), tmp_path / "same", lambda document: None)
    assert failing(gate, untouched, inputs) == []
    measurement = next(iter(json.loads((untouched / "result.json").read_text())["measurements"]))

    def raise_by_one(document: dict) -> None:
        document["measurements"][measurement]["value"] += 1

    lie = forged(outputs_of(name), tmp_path / "lie", raise_by_one)
    failed = failing(gate, lie, inputs)
    assert not INTEGRITY_CHECKS.intersection(failed)
    assert [check for check in failed if measurement in check] != []


def changed_inputs(inputs: Path, tmp_path: Path, **entries: dict[str, str]) -> Path:
    """Write the inputs with some entries replaced."""
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps(json.loads(inputs.read_text()) | entries))
    return path


def copy_concepts(inputs: Path, tmp_path: Path) -> Path:
    """Copy the concept documents to a folder that a test may change."""
    folder = tmp_path / "concepts"
    shutil.copytree(Path(json.loads(inputs.read_text())["concepts"]["path"]), folder)
    return folder


def run_documentation(inputs: Path, out: Path) -> Path:
    """Run the documentation experiment and return `out`."""
    config = "lab/documentation/experiment.yaml"
    return run_experiment("lab.documentation.experiment", config, inputs, out)


def test_an_honest_run_on_a_broken_document_is_refused(inputs: Path, tmp_path: Path) -> None:
    folder = copy_concepts(inputs, tmp_path)
    text = (folder / "qlora.md").read_text("utf-8")
    (folder / "qlora.md").write_text(text.replace("[LoRA].", "[Lora].", 1), "utf-8")
    changed = changed_inputs(inputs, tmp_path, concepts={"kind": "input", "path": str(folder)})
    out = run_documentation(changed, tmp_path / "out")
    assert "[Lora] is cited and not among the sources" in (out / "report.md").read_text()
    checks = failing("documentation/test_documentation.py", out, changed)
    assert "test_no_document_has_a_problem" in checks


def test_a_published_report_is_no_concept_document_and_a_forged_one_is_refused(
    outputs_of: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    folder = copy_concepts(inputs, tmp_path)
    report = (outputs_of("questions") / "report.md").read_text("utf-8")
    changed = changed_inputs(inputs, tmp_path, concepts={"kind": "input", "path": str(folder)})

    def judge(text: str, name: str) -> tuple[list[str], set[str]]:
        (folder / "published.md").write_text(text, "utf-8")
        out = run_documentation(changed, tmp_path / name)
        stored = {path.name for path in (out / "documents").iterdir()}
        return failing("documentation/test_documentation.py", out, changed), stored

    checks, stored = judge(report, "whole")
    assert checks == [] and "published.md" not in stored and "qlora.md" in stored
    assert "## Findings" in report
    checks, stored = judge(report.replace("## Findings", "## Lessons"), "forged")
    assert "test_no_document_has_a_problem" in checks and "published.md" in stored


def test_an_answer_without_a_receipt_is_refused_and_one_with_it_is_not(
    inputs: Path, tmp_path: Path
) -> None:
    text = Path(json.loads(inputs.read_text())["questions"]["path"]).read_text("utf-8")

    def judge(feature: str) -> list[str]:
        answer = f"- status: ANSWERED\n- answered by: {feature}"
        log = tmp_path / f"{feature}.md"
        log.write_text(text.replace("- status: OPEN", answer, 1), "utf-8")
        changed = changed_inputs(inputs, tmp_path, questions={"kind": "input", "path": str(log)})
        config = "lab/questions/experiment.yaml"
        out = run_experiment("lab.questions.experiment", config, changed, tmp_path / feature)
        return failing("questions/test_questions.py", out, changed)

    assert judge("FEAT-001") == []
    assert judge("FEAT-005") == ["test_log_has_no_problem"]


def test_documents_edited_after_the_run_are_seen(
    outputs_of: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    def edit(document: dict) -> None:
        page = tmp_path / "out/rendered/qlora.md"
        text = page.read_text("utf-8").replace("± 0.10", "± 0.01", 1).replace("2.", "1.", 1)
        page.write_text(text, "utf-8")

    out = forged(outputs_of("documentation"), tmp_path / "out", edit)
    checks = failing("documentation/test_documentation.py", out, inputs)
    assert "test_rendered_numbers_are_those_that_were_measured" in checks
