"""The report: a pure function of the bytes of result.json, so that it can state nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lab.present.numbers import number, quantity
from lab.result import Measurement, Scalar


def report(result_json: bytes) -> str:
    """Give report.md for the bytes of a result.json (without its last line, which `write` adds).

    Sections: question, hypothesis, method, results (measurements, tables, figures),
    findings, environment.
    """
    raw = json.loads(result_json)
    parts = [
        f"# {raw['experiment']}",
        _section("Question", raw["question"]),
        _section("Hypothesis", raw["hypothesis"]),
        _section("Method", raw["method"]),
        _section("Results", *_results(raw)),
        _section(
            "Findings",
            "\n".join(f"- {sentence}" for sentence in raw["findings"]) or "None were drawn.",
        ),
        _section("Environment", _environment(raw["environment"])),
    ]
    return "\n\n".join(parts) + "\n\n"


def _section(title: str, *blocks: str) -> str:
    return "\n\n".join([f"## {title}", *(block.strip() for block in blocks)])


def _results(raw: Mapping[str, Any]) -> list[str]:
    measured = [
        (f"`{name}`", *_cells(Measurement.from_json(m))) for name, m in raw["measurements"].items()
    ]
    blocks = [_table(("measurement", "value", "kind"), measured)]
    for table in raw["tables"]:
        blocks += [f"### {table['title']}", _table(table["columns"], table["rows"])]
    for figure in raw["figures"]:
        blocks += [
            f"### {figure['title']}",
            f"![{_escape(figure['title'])}](figures/{figure['name']}.png)",
            f"{figure['caption']} (data: `figures/{figure['name']}.json`)",
        ]
    return blocks


def _cells(measurement: Measurement) -> tuple[str, str]:
    return quantity(measurement), "exact" if measurement.exact else "estimate"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Scalar]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_escape(number(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _environment(facts: Mapping[str, Any]) -> str:
    lines = []
    for key, value in facts.items():
        text = (
            ", ".join(f"{k} {v}" for k, v in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        lines.append(f"- {key}: {text or 'none'}")
    return "\n".join(lines) or "Not recorded."


def _escape(text: str) -> str:
    """Keep a cell one cell: a bar or a line break in it would break the table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
