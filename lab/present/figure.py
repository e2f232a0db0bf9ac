"""A figure as data: `draw` turns it into a picture, and it is stored beside that as JSON."""

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
    as y, in y's unit; the figure's caption must say what it is (one standard error, a range over
    seeds). Series of the same `group` share a colour (points and the line through their means,
    say); a series without a group has a colour of its own.
    """

    label: str
    x: Sequence[float | str]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    kind: Literal["line", "points", "bar"] = "line"
    style: Literal["solid", "dashed", "dotted"] = "solid"
    group: str | None = None

    def __post_init__(self) -> None:
        """Make the numbers plain and check the lengths."""
        object.__setattr__(self, "x", tuple(plain(v) for v in self.x))
        object.__setattr__(self, "y", tuple(plain(v) for v in self.y))
        columns: list[Sequence[float | str]] = [self.x]
        if self.band is not None:
            lower, upper = (tuple(plain(v) for v in edge) for edge in self.band)
            object.__setattr__(self, "band", (lower, upper))
            columns += [lower, upper]
        for column in columns:
            if len(column) != len(self.y):
                msg = f"series {self.label!r}: {len(column)} values beside {len(self.y)} of y"
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
        """Refuse an empty or unreadable picture."""
        object.__setattr__(self, "series", tuple(self.series))
        if not NAME.match(self.name):
            msg = f"figure name {self.name!r}; expected snake_case such as 'eval_loss'"
            raise ContractError(msg)
        if not self.caption.strip():
            msg = f"figure {self.name!r} has no caption; say in a sentence what its numbers show"
            raise ContractError(msg)
        if not any(series.y for series in self.series):
            msg = f"figure {self.name!r} shows no value"
            raise ContractError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return the object that is written to figures/NAME.json."""
        return asdict(self)
