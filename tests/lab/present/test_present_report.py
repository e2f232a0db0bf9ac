"""The report: made from result.json alone, sealed, and another number makes another report."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contract import ContractError, Measurement, Result, Table
from lab.digests import sha256
from lab.EXPERIMENT_TEMPLATE import findings
from lab.present import Figure, Series, report, write

RESULT = Result(
    "lab.x",
    "Does it fall?",
    "It does.",
    "By looking.",
    {"loss": Measurement.of_sample([1.0, 2.0], "nats"), "steps": Measurement.of_exact(60)},
    tables=(Table("Parts", ("name", "size"), (("a|b\nc", 1.5), ("d", None))),),
    findings=("It fell by 1.50 nats.",),
    environment={"python": "3.11", "packages": {"torch": "2.13"}},
)
FIGURE = Figure("curve", "Curve", "From 3 to 1.", "step", "nats", (Series("a", (0, 1), (3, 1)),))


def written(out: Path, result: Result = RESULT) -> Path:
    (out / "artifacts").mkdir(parents=True)
    (out / "artifacts/data.jsonl").write_text('{"a": 1}\n')
    write(out, result, [FIGURE])
    return out


def test_result_lists_every_other_file_with_its_digest(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    listed = json.loads((out / "result.json").read_text())["files"]
    assert set(listed) == {
        "artifacts/data.jsonl",
        "figures/curve.json",
        "figures/curve.png",
        "figures/curve.svg",
    }
    assert all(sha256((out / name).read_bytes()) == digest for name, digest in listed.items())


def test_a_result_below_the_outputs_is_listed_like_any_file(tmp_path: Path) -> None:
    written(tmp_path / "artifacts/inner")
    write(tmp_path, RESULT)
    assert {"artifacts/inner/result.json", "artifacts/inner/report.md"} <= set(
        json.loads((tmp_path / "result.json").read_text())["files"]
    )


def test_the_report_is_a_function_of_result_json_and_sealed(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    document, text = (out / "result.json").read_bytes(), (out / "report.md").read_text()
    body = report(document)
    seal = f"<!-- result.json sha256:{sha256(document)} body sha256:{sha256(body.encode())} -->\n"
    assert text == body + seal


def test_the_report_says_everything(tmp_path: Path) -> None:
    text = (written(tmp_path / "out") / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {name}"
        for name in ("Question", "Hypothesis", "Method", "Results", "Findings", "Environment")
    ]
    for part in ("Does it fall?", "It does.", "By looking.",
                 "1.500 ± 0.50 nats (n = 2)", "| `steps` | 60 | exact |",
                 "![Curve](figures/curve.png)", "From 3 to 1.",
                 "- It fell by 1.50 nats.", "torch 2.13"):  # fmt: skip
        assert part in text


def test_a_cell_cannot_break_its_table(tmp_path: Path) -> None:
    text = (written(tmp_path / "out") / "report.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| a")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert "| d | not measured |" in text


@pytest.mark.parametrize("name", ["loss", "steps"])
def test_another_number_makes_another_report(tmp_path: Path, name: str) -> None:
    document = json.loads((written(tmp_path / "out") / "result.json").read_text())
    before = report(json.dumps(document).encode())
    document["measurements"][name]["value"] = 7.25
    assert report(json.dumps(document).encode()) == before.replace(
        "1.500 ±" if name == "loss" else "60 | exact",
        "7.250 ±" if name == "loss" else "7.250 | exact",
    )


def test_a_result_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="NaN"):
        written(tmp_path / "out", replace(RESULT, environment={"speed": float("nan")}))


def test_the_template_turns_its_sentences_with_its_numbers() -> None:
    def sentences(loss: list[float], control: float) -> str:
        found = {
            "loss": Measurement.of_sample(loss, "nats/token"),
            "chance_loss": Measurement.of_exact(5.0, "nats/token"),
            "control_loss": Measurement.of_sample([control, control], "nats/token"),
        }
        return " ".join(findings(found))

    assert " above the ln V" in sentences([5.1, 5.2, 5.15], 5.0)
    assert " below the ln V" in sentences([4.1, 4.2, 4.15], 5.0)
    assert " not distinguishable from the ln V" in sentences([4.9, 5.2, 4.95], 5.0)
    assert "agrees" in sentences([5.1, 5.2], 5.0) and "DISAGREES" in sentences([5.1, 5.2], 5.1)
