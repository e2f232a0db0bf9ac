"""A figure as data: what `draw` turns into a picture and what is stored beside it as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lab.result import ContractError, plain

NAME = re.compile(r"^[a-z][a-z0-9_]*$")


@dataclass(frozen=True)
class Series:
    """One line, cloud of points or group of bars; x and y have the same length.

    `x` holds numbers, or the names of categories for bars. `band` is (lower, upper), each as long
    as y, in y's unit: what it is (one standard error, a range over seeds) must stand in the
    figure's caption.
    """

    label: str
    x: Sequence[float | str]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    kind: Literal["line", "points", "bar"] = "line"
    style: Literal["solid", "dashed", "dotted"] = "solid"

    def __post_init__(self) -> None:
        """Make the numbers plain and check the lengths."""
        object.__setattr__(self, "x", tuple(plain(v) for v in self.x))
        object.__setattr__(self, "y", tuple(plain(v) for v in self.y))
        if self.band is not None:
            object.__setattr__(
                self, "band", tuple(tuple(plain(v) for v in edge) for edge in self.band)
            )
        for part in (self.x, *(self.band or ())):
            if len(part) != len(self.y):
                msg = f"series {self.label!r}: {len(part)} values beside {len(self.y)} of y"
                raise ContractError(msg)


@dataclass(frozen=True)
class Figure:
    """One figure. `caption` is made from the numbers shown; the axes' labels carry the units."""

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        """Check what would make an empty or unreadable picture."""
        object.__setattr__(self, "series", tuple(self.series))
        if not NAME.match(self.name):
            msg = f"figure name {self.name!r}; wanted snake_case such as 'eval_loss'"
            raise ContractError(msg)
        if not self.caption.strip():
            msg = f"figure {self.name!r} has no caption; say in a sentence what its numbers show"
            raise ContractError(msg)
        if not any(series.y for series in self.series):
            msg = f"figure {self.name!r} shows no value"
            raise ContractError(msg)

    def to_json(self) -> dict[str, Any]:
        """Give the object that stands in figures/NAME.json."""
        return asdict(self)
