"""The tables of the extraction study: every family, and every kind of the real model."""

from __future__ import annotations

from lab.attention_extraction.measured import WRAPPERS, ExtractionObservations
from lab.attention_extraction.numbers import family_row
from lab.contract import Table
from lab.instruments.families import CHANGES

KINDS = {
    "float32": "float32, sdpa",
    "float64": "float64, sdpa",
    **{name: f"{name} model" for name in WRAPPERS},
    "shift": "float32, positions + shift",
    "stretch": "float32, positions × stretch (control)",
}


def tables(observations: ExtractionObservations) -> list[Table]:
    """Return the families and the real model's kinds."""
    family_rows = []
    for family, arrays in observations.families.items():
        special = ", ".join(f"{key} {value}" for key, value in CHANGES[family].items()) or "none"
        family_rows.append((family, special, *family_row(arrays)))

    kind_rows = []
    for name, kind in KINDS.items():
        differences = observations.kinds[name].differences()
        kind_rows.append((kind, float(differences.max()), int(differences.argmax())))
    return [
        Table(
            "Families: largest difference to eager attention",
            ("family", "special", "float32", "float64"),
            tuple(family_rows),
        ),
        Table(
            "The real model: largest difference of a weight",
            ("kind", "difference", "in layer"),
            tuple(kind_rows),
        ),
    ]
