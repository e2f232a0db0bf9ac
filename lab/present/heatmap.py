"""A heatmap as data: one or several panels of coloured cells with one common colour range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lab.present.figure import NAME
from lab.result import ContractError, plain


@dataclass(frozen=True)
class Panel:
    """One grid of cells: `values` [rows, columns], the first row on top; None is drawn grey."""

    label: str
    values: Sequence[Sequence[float | None]]

    def __post_init__(self) -> None:
        """Make the numbers plain and check that every row has the same length."""
        rows = tuple(tuple(plain(value) for value in row) for row in self.values)
        object.__setattr__(self, "values", rows)
        lengths = {len(row) for row in rows}
        if len(lengths) != 1 or 0 in lengths:
            got = ", ".join(str(length) for length in sorted(lengths)) or "no row"
            msg = f"panel {self.label!r} has rows of {got} values; expected rows of one length"
            raise ContractError(msg)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns)."""
        return len(self.values), len(self.values[0])


@dataclass(frozen=True)
class Heatmap:
    """One figure of coloured cells. `caption` is made from the numbers shown.

    panels: grids drawn side by side. x_names, y_names: the names of columns and rows, each as many
    as every panel has; without names the cells are counted from 0. value_label says what a colour
    means, with its unit. low, high: ends of the colour range; None takes the data's. Where
    low < 0 < high the colours diverge from 0.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    value_label: str
    panels: tuple[Panel, ...]
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Refuse an empty or unreadable picture."""
        for field in ("panels", "x_names", "y_names"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "low", plain(self.low))
        object.__setattr__(self, "high", plain(self.high))
        if not NAME.match(self.name):
            msg = f"figure name {self.name!r}; expected snake_case such as 'sink_share'"
            raise ContractError(msg)
        if not self.caption.strip():
            msg = f"figure {self.name!r} has no caption; say in a sentence what its numbers show"
            raise ContractError(msg)
        if not self._numbers():
            msg = f"figure {self.name!r} shows no value"
            raise ContractError(msg)
        self._check_names()
        low, high = self.colour_range
        if low > high:
            msg = f"figure {self.name!r}: low {low} is above high {high}"
            raise ContractError(msg)

    @property
    def colour_range(self) -> tuple[float, float]:
        """Return the values at the ends of the colour bar."""
        numbers = self._numbers()
        low, high = self.low, self.high
        if low is None:
            low = min(numbers)
        if high is None:
            high = max(numbers)
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Return the object that is written to figures/NAME.json."""
        return asdict(self)

    def _numbers(self) -> list[float]:
        numbers: list[float] = []
        for panel in self.panels:
            for row in panel.values:
                numbers += [value for value in row if value is not None]
        return numbers

    def _check_names(self) -> None:
        """Refuse names that are not as many as the cells that they name."""
        for panel in self.panels:
            rows, columns = panel.shape
            for axis, names, cells in (("y", self.y_names, rows), ("x", self.x_names, columns)):
                if names and len(names) != cells:
                    msg = (
                        f"figure {self.name!r}, panel {panel.label!r}: {len(names)} {axis}_names "
                        f"beside {cells} cells"
                    )
                    raise ContractError(msg)
