"""What an experiment hands back: measurements, tables, sentences, as result.json has them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Scalar = bool | int | float | str | None


class ContractError(ValueError):
    """A result or an input breaks the contract.

    The message names the thing, the value got and the value expected.
    """


@dataclass(frozen=True)
class Measurement:
    """One measured quantity.

    `exact` marks a count, an identity or a choice; every other value is an estimate with the
    standard error `stderr` (in `unit`) over `n` repetitions, whose single `values` are stored
    where they are few. `value` None means "could not be measured": NaN and infinity are refused,
    because JSON cannot express them and a comparison with NaN is false.
    """

    value: Scalar
    unit: str = ""
    exact: bool = False
    stderr: float | None = None
    n: int | None = None
    values: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Turn numpy and torch scalars into plain ones and refuse what JSON cannot say."""
        object.__setattr__(self, "value", plain(self.value))
        object.__setattr__(self, "stderr", plain(self.stderr))
        if self.values is not None:
            object.__setattr__(self, "values", tuple(plain(v) for v in self.values))
        _refuse_infinite(self.unit, (self.value, self.stderr, *(self.values or ())))

    @classmethod
    def of_exact(cls, value: Scalar, unit: str = "") -> Measurement:
        """Return a count, an identity or a choice: repeating the run cannot change it by chance."""
        return cls(value, unit, exact=True)

    @classmethod
    def of_sample(cls, values: Sequence[float], unit: str) -> Measurement:
        """Return the mean of repeated values.

        stderr = sd / sqrt(n) with the n - 1 denominator, None for n = 1.
        """
        numbers = tuple(float(plain(v)) for v in values)
        if not numbers:
            msg = "got a sample of 0 values, which has no mean; expected at least 1"
            raise ContractError(msg)
        # before the standard deviation: `stdev` fails on NaN with a message of its own
        _refuse_infinite(unit, numbers)
        stderr = None
        if len(numbers) > 1:
            stderr = statistics.stdev(numbers) / math.sqrt(len(numbers))
        return cls(
            value=statistics.fmean(numbers),
            unit=unit,
            stderr=stderr,
            n=len(numbers),
            values=numbers,
        )

    @classmethod
    def of_estimate(
        cls, value: Scalar, unit: str, *, stderr: float | None = None, n: int | None = None
    ) -> Measurement:
        """Return an estimate whose values are stored in artifacts/, or that was taken once."""
        return cls(value, unit, stderr=stderr, n=n)

    @property
    def number(self) -> float:
        """Return the value as a float.

        Raises:
            ContractError: the value is None or a text.
        """
        if self.value is None or isinstance(self.value, str):
            msg = f"got {self.value!r}; expected a number"
            raise ContractError(msg)
        return float(self.value)

    def to_json(self) -> dict[str, Any]:
        """Return the object that is written to result.json."""
        if self.exact:
            return {"value": self.value, "unit": self.unit, "exact": True}
        values = None if self.values is None else list(self.values)
        return {
            "value": self.value,
            "unit": self.unit,
            "stderr": self.stderr,
            "n": self.n,
            "values": values,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Measurement:
        """Read what `to_json` wrote."""
        values = raw.get("values")
        if values is not None:
            values = tuple(values)
        return cls(
            value=raw["value"],
            unit=raw["unit"],
            exact=raw.get("exact", False),
            stderr=raw.get("stderr"),
            n=raw.get("n"),
            values=values,
        )


@dataclass(frozen=True)
class Table:
    """A table of a report: `rows` hold one cell (text or number) per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]

    def __post_init__(self) -> None:
        """Make the rows plain and check their length."""
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(plain(c) for c in row) for row in self.rows))
        for row in self.rows:
            if len(row) != len(self.columns):
                msg = (
                    f"table {self.title!r}: row {row} has {len(row)} cells; expected "
                    f"{len(self.columns)}"
                )
                raise ContractError(msg)


@dataclass(frozen=True)
class Result:
    """What an experiment measured and concluded, before it is shown.

    `experiment` is its module, `title` its heading in words; `headline` names the measurements to
    read first. `findings` are sentences made from the numbers of `measurements`, so that another
    number makes another sentence. `figures` (name, title, caption of each) and `files` (path
    below the output folder -> sha256) are filled in by `lab.present.write`.
    """

    experiment: str
    title: str
    question: str
    hypothesis: str
    method: str
    headline: tuple[str, ...]
    measurements: Mapping[str, Measurement]
    tables: tuple[Table, ...] = ()
    findings: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[Mapping[str, str], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names: predictions and placeholders refer to them."""
        for name in self.measurements:
            if not (name.isidentifier() and name == name.lower()):
                msg = f"measurement name {name!r}; expected snake_case such as 'eval_loss'"
                raise ContractError(msg)
        for name in self.headline:
            if name not in self.measurements:
                msg = f"headline names {name!r}, which is no measurement of this result"
                raise ContractError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return the object that is written to result.json."""
        return {
            "experiment": self.experiment,
            "title": self.title,
            "question": self.question,
            "hypothesis": self.hypothesis,
            "method": self.method,
            "headline": list(self.headline),
            "measurements": {name: m.to_json() for name, m in self.measurements.items()},
            "tables": [
                {
                    "title": t.title,
                    "columns": list(t.columns),
                    "rows": [list(row) for row in t.rows],
                }
                for t in self.tables
            ],
            "findings": list(self.findings),
            "environment": dict(self.environment),
            "figures": [dict(figure) for figure in self.figures],
            "files": dict(self.files),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Result:
        """Read what `to_json` wrote."""
        return cls(
            experiment=raw["experiment"],
            title=raw["title"],
            question=raw["question"],
            hypothesis=raw["hypothesis"],
            method=raw["method"],
            headline=tuple(raw["headline"]),
            measurements={
                name: Measurement.from_json(m) for name, m in raw["measurements"].items()
            },
            tables=tuple(Table(t["title"], t["columns"], t["rows"]) for t in raw["tables"]),
            findings=tuple(raw["findings"]),
            environment=raw["environment"],
            figures=tuple(raw["figures"]),
            files=raw["files"],
        )


def _refuse_infinite(unit: str, numbers: Iterable[Scalar]) -> None:
    for number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            msg = f"measurement in {unit!r} is {number}; expected a finite number, or None"
            raise ContractError(msg)


def plain(value: Any) -> Any:
    """Return the Python number of a numpy or torch scalar; anything else as it is."""
    if hasattr(value, "item"):
        return value.item()
    return value
