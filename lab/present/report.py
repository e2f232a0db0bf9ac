"""The report: a pure function of the bytes of result.json, so that it can state nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.present.numbers import number, quantity
from lab.result import Measurement, Scalar


def report(result_json: bytes) -> str:
    """Return report.md for the bytes of a result.json (without its last line, which `write` adds).

    What was found comes first: title, question, findings, headline measurements, figures. Then how:
    hypothesis and method. Then everything: tables, all measurements, environment.
    """
    raw = json.loads(result_json)
    measurements = {name: Measurement.from_json(m) for name, m in raw["measurements"].items()}
    headline = {name: measurements[name] for name in raw["headline"]}

    sections = [
        ("Findings", _list(raw["findings"]) or "No finding was drawn."),
        ("Headline measurements", _headline(headline)),
        ("Figures", _figures(raw["figures"])),
        ("Hypothesis", raw["hypothesis"]),
        ("Method", raw["method"]),
        ("Tables", _tables(raw["tables"])),
        ("All measurements", _all_measurements(measurements)),
        ("Environment", _environment(raw["experiment"], raw["environment"])),
    ]
    parts = [f"# {raw['title']}", raw["question"].strip()]
    for title, text in sections:
        # A run without headline, figures or tables has no such section.
        if text.strip():
            parts.append(f"## {title}\n\n{text.strip()}")
    return "\n\n".join(parts) + "\n\n"


def _headline(measurements: Mapping[str, Measurement]) -> str:
    if not measurements:
        return ""
    rows = [(f"`{name}`", quantity(measurement)) for name, measurement in measurements.items()]
    return _table(("measurement", "value"), rows)


def _all_measurements(measurements: Mapping[str, Measurement]) -> str:
    rows = []
    for name, measurement in measurements.items():
        kind = "exact" if measurement.exact else "estimate"
        rows.append((f"`{name}`", quantity(measurement), kind))
    return _table(("measurement", "value", "kind"), rows)


def _figures(figures: Iterable[Mapping[str, str]]) -> str:
    blocks = []
    for figure in figures:
        blocks += [
            f"### {figure['title']}",
            f"![{_escape(figure['title'])}](figures/{figure['name']}.png)",
            f"{figure['caption']} (data: `figures/{figure['name']}.json`)",
        ]
    return "\n\n".join(blocks)


def _tables(tables: Iterable[Mapping[str, Any]]) -> str:
    blocks = []
    for table in tables:
        blocks += [f"### {table['title']}", _table(table["columns"], table["rows"])]
    return "\n\n".join(blocks)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Scalar]]) -> str:
    lines = [_row(columns), "|" + "---|" * len(columns)]
    lines += [_row(row) for row in rows]
    return "\n".join(lines)


def _row(cells: Sequence[Scalar]) -> str:
    texts = [_escape(number(cell)) for cell in cells]
    return "| " + " | ".join(texts) + " |"


def _environment(experiment: str, fields: Mapping[str, Any]) -> str:
    lines = [f"experiment: `{experiment}`"]
    for key, value in fields.items():
        text = str(value)
        if isinstance(value, dict):
            text = ", ".join(f"{name} {part}" for name, part in value.items())
        lines.append(f"{key}: {text or 'none'}")
    return _list(lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _escape(text: str) -> str:
    """Return the text with nothing in it that would end a cell: no bar, no line break."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
