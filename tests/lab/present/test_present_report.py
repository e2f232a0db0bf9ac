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
    experiment="lab.x",
    title="Falling loss",
    question="Does it fall?",
    hypothesis="It does.",
    method="By looking.",
    headline=("loss",),
    measurements={
        "steps": Measurement.of_exact(60),
        "loss": Measurement.of_sample([1.0, 2.0], "nats"),
        "memory": Measurement.of_exact(3 * 1024**2, "bytes"),
    },
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
    files = json.loads((out / "result.json").read_text())["files"]
    assert set(files) == {
        "artifacts/data.jsonl",
        "figures/curve.json",
        "figures/curve.png",
        "figures/curve.svg",
    }
    assert all(sha256((out / name).read_bytes()) == digest for name, digest in files.items())


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


SECTIONS = [
    "Findings",
    "Headline measurements",
    "Figures",
    "Hypothesis",
    "Method",
    "Tables",
    "All measurements",
    "Environment",
]


def sections_of(text: str) -> dict[str, str]:
    """Return the text of each section by its heading."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_report_opens_with_what_was_found_and_says_everything(tmp_path: Path) -> None:
    text = (written(tmp_path / "out") / "report.md").read_text()
    assert text.startswith("# Falling loss\n\nDoes it fall?\n\n## Findings\n")
    sections = sections_of(text)
    assert list(sections) == SECTIONS
    expected = {
        "Findings": "- It fell by 1.50 nats.",
        "Headline measurements": "| `loss` | 1.500 ± 0.50 nats (n = 2) |",
        "Hypothesis": "It does.",
        "Method": "By looking.",
        "Tables": "### Parts",
    }
    for title, part in expected.items():
        assert part in sections[title]
    for part in ("![Curve](figures/curve.png)", "From 3 to 1.", "`figures/curve.json`"):
        assert part in sections["Figures"]
    for part in ("torch 2.13", "- experiment: `lab.x`", "- python: 3.11"):
        assert part in sections["Environment"]


def test_the_report_lists_each_measurement_with_unit_and_kind(tmp_path: Path) -> None:
    text = (written(tmp_path / "out") / "report.md").read_text()
    rows = sections_of(text)["All measurements"].strip().splitlines()[2:]
    assert rows == [
        "| `steps` | 60 | exact |",
        "| `loss` | 1.500 ± 0.50 nats (n = 2) | estimate |",
        "| `memory` | 3.000 MiB | exact |",
    ]
    assert "`steps`" not in sections_of(text)["Headline measurements"]


def test_a_result_without_headline_figures_and_tables_has_no_empty_section(tmp_path: Path) -> None:
    write(tmp_path, replace(RESULT, headline=(), tables=(), findings=()))
    sections = sections_of((tmp_path / "report.md").read_text())
    empty = {"Headline measurements", "Figures", "Tables"}
    assert list(sections) == [title for title in SECTIONS if title not in empty]
    assert sections["Findings"].strip() == "No finding was drawn."


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
        measurements = {
            "loss": Measurement.of_sample(loss, "nats/token"),
            "chance_loss": Measurement.of_exact(5.0, "nats/token"),
            "control_loss": Measurement.of_sample([control, control], "nats/token"),
        }
        return " ".join(findings(measurements))

    assert " above the ln V" in sentences([5.1, 5.2, 5.15], 5.0)
    assert " below the ln V" in sentences([4.1, 4.2, 4.15], 5.0)
    assert " not distinguishable from the ln V" in sentences([4.9, 5.2, 4.95], 5.0)
    assert "agrees" in sentences([5.1, 5.2], 5.0) and "DISAGREES" in sentences([5.1, 5.2], 5.1)
