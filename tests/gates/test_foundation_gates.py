"""Gates of FEAT-002 to FEAT-004: they pass what was made and see every lie, consistent ones too."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import present
from lab.contract import Result
from phases.execution.sandbox import NoSandbox
from phases.judge.gate import judge_feature
from phases.judge.gate_run import GateKind, GateSpec
from tests.gates.conftest import ROOT, failing, run_experiment

FEATURES = ("documentation", "questions", "template")


@pytest.mark.parametrize("name", FEATURES)
def test_the_runner_finds_the_gate_able_to_fail_and_every_measurement_judged(
    name: str, foundation: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    out = foundation(name)
    files = [path for path in out.rglob("*") if path.is_file()]
    judgement = judge_feature(
        GateSpec(GateKind.PYTEST, f"gates/{name}/test_{name}.py", 120),
        gates_dir=ROOT,
        out=out,
        outputs={
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
        inputs_file=inputs,
        workspace=tmp_path / "workspace",
        env={},
        sandbox=NoSandbox(),
    )
    assert judgement.state == "verified", judgement.reasons
    assert [(item.kind, item.outcome) for item in judgement.mutants if not item.killed] == []
    assert judgement.coverage is not None
    assert set(judgement.coverage.recomputed) == set(
        json.loads((out / "result.json").read_text())["measurements"]
    )


def forged(out: Path, target: Path, edit: Callable[[dict], None]) -> Path:
    """Copy outputs, edit the result, and seal everything anew, as a careful forger would."""
    shutil.copytree(out, target)
    document = json.loads((target / "result.json").read_text())
    edit(document)
    sealed = replace(Result.from_json(document), figures=(), files={})
    figures = [
        present.Figure(
            **(data | {"series": tuple(present.Series(**series) for series in data["series"])})
        )
        for data in (
            json.loads(path.read_text()) for path in sorted((target / "figures").glob("*.json"))
        )
    ]
    present.write(target, sealed, figures)
    return target


@pytest.mark.parametrize("name", FEATURES)
def test_a_forger_who_seals_everything_anew_is_seen(
    name: str, foundation: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    untouched = forged(foundation(name), tmp_path / "same", lambda document: None)
    assert failing(f"{name}/test_{name}.py", untouched, inputs) == []
    measurement = next(iter(json.loads((untouched / "result.json").read_text())["measurements"]))

    def raise_by_one(document: dict) -> None:
        document["measurements"][measurement]["value"] += 1

    lied = forged(foundation(name), tmp_path / "lied", raise_by_one)
    assert failing(f"{name}/test_{name}.py", lied, inputs, "-m", "integrity") == []
    assert [
        check for check in failing(f"{name}/test_{name}.py", lied, inputs) if measurement in check
    ] != []


def given(inputs: Path, tmp_path: Path, **entries: dict[str, str]) -> Path:
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps(json.loads(inputs.read_text()) | entries))
    return path


def test_an_honest_run_on_a_broken_document_is_refused(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "concepts"
    shutil.copytree(Path(json.loads(inputs.read_text())["concepts"]["path"]), folder)
    text = (folder / "qlora.md").read_text("utf-8")
    (folder / "qlora.md").write_text(text.replace("[LoRA].", "[Lora].", 1), "utf-8")
    changed = given(inputs, tmp_path, concepts={"kind": "input", "path": str(folder)})
    out = run_experiment(
        "lab.documentation.experiment",
        "lab/documentation/experiment.yaml",
        changed,
        tmp_path / "out",
    )
    assert "[Lora] is cited and not among the sources" in (out / "report.md").read_text()
    assert "test_no_document_has_a_fault" in failing(
        "documentation/test_documentation.py", out, changed
    )


def test_a_published_report_is_no_concept_document_and_a_forged_one_is_refused(
    foundation: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "concepts"
    shutil.copytree(Path(json.loads(inputs.read_text())["concepts"]["path"]), folder)
    report = (foundation("questions") / "report.md").read_text("utf-8")
    changed = given(inputs, tmp_path, concepts={"kind": "input", "path": str(folder)})

    def judged(text: str, name: str) -> tuple[list[str], set[str]]:
        (folder / "published.md").write_text(text, "utf-8")
        config = "lab/documentation/experiment.yaml"
        out = run_experiment("lab.documentation.experiment", config, changed, tmp_path / name)
        return failing("documentation/test_documentation.py", out, changed), {
            path.name for path in (out / "documents").iterdir()
        }

    checks, stored = judged(report, "whole")
    assert checks == [] and "published.md" not in stored and "qlora.md" in stored
    checks, stored = judged(report.replace("## Learnings", "## Lessons"), "forged")
    assert "test_no_document_has_a_fault" in checks and "published.md" in stored


def test_an_answer_without_a_receipt_is_refused_and_one_with_it_is_not(
    inputs: Path, tmp_path: Path
) -> None:
    text = Path(json.loads(inputs.read_text())["questions"]["path"]).read_text("utf-8")

    def judged(feature: str) -> list[str]:
        log = tmp_path / f"{feature}.md"
        log.write_text(
            text.replace("- status: OPEN", f"- status: ANSWERED\n- answered by: {feature}", 1),
            "utf-8",
        )
        changed = given(inputs, tmp_path, questions={"kind": "input", "path": str(log)})
        out = run_experiment(
            "lab.questions.experiment", "lab/questions/experiment.yaml", changed, tmp_path / feature
        )
        return failing("questions/test_questions.py", out, changed)

    assert judged("FEAT-001") == []
    assert judged("FEAT-005") == ["test_log_has_no_fault"]


def test_documents_edited_after_the_run_are_seen(
    foundation: Callable[[str], Path], inputs: Path, tmp_path: Path
) -> None:
    def edit(document: dict) -> None:
        page = tmp_path / "out/rendered/qlora.md"
        page.write_text(
            page.read_text("utf-8").replace("± 0.10", "± 0.01", 1).replace("2.", "1.", 1), "utf-8"
        )

    out = forged(foundation("documentation"), tmp_path / "out", edit)
    assert "test_rendered_numbers_are_those_that_were_measured" in failing(
        "documentation/test_documentation.py", out, inputs
    )
