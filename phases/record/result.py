"""result.json as an experiment wrote it: its measurements, and which of them to read first.

The file belongs to the experiment. The runner reads `measurements` (name -> object with `value`,
`unit`, `stderr`, `n`) and `headline` (names of measurements, most important first).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phases.base import strict_json

RESULT = "result.json"
MAX_BYTES = 50_000_000
SHOWN_MEASUREMENTS = 6


@dataclass(frozen=True)
class ReportedMeasurements:
    """What a result.json reports, for a reader."""

    by_name: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The headline first, then the others in the file's order."""
    headline: tuple[str, ...] = ()
    """Names of the measurements to read first; empty where the file names none."""

    @property
    def shown_names(self) -> list[str]:
        """The names that a summary shows: the headline, else the first measurements."""
        return list(self.headline or self.by_name)[:SHOWN_MEASUREMENTS]


def read_measurements(result: bytes) -> dict[str, Any]:
    """Read the `measurements` of a result.json by name, in the file's order; {} if it has none.

    Raises:
        strict_json.StrictJsonError: not strict JSON, or `measurements` is not an object.
    """
    return _measurements_of(_read_object(result))


def reported_measurements(result: bytes) -> ReportedMeasurements:
    """Return what a result.json reports; nothing where it cannot be read: the gate judges that.

    A headline name without a measurement is left out, and so is a measurement that is no object.
    """
    try:
        document = _read_object(result)
        measurements = _measurements_of(document)
    except strict_json.StrictJsonError:
        return ReportedMeasurements()
    reported = {name: item for name, item in measurements.items() if isinstance(item, dict)}
    headline = []
    names = document.get("headline")
    if isinstance(names, list):
        headline = [name for name in names if isinstance(name, str) and name in reported]
    ordered = {name: reported[name] for name in [*headline, *reported]}
    return ReportedMeasurements(ordered, tuple(dict.fromkeys(headline)))


def _measurements_of(document: Mapping[str, Any]) -> dict[str, Any]:
    measurements = document.get("measurements", {})
    if not isinstance(measurements, dict):
        problem = f"measurements: got a {type(measurements).__name__}; expected an object"
        raise strict_json.StrictJsonError([problem])
    return measurements


def _read_object(result: bytes) -> dict[str, Any]:
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    if not isinstance(document, dict):
        return {}
    return document
