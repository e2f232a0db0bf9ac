"""Turning a heatmap's data into PNG and SVG.

Matplotlib (Agg) is imported here only, and only when a figure is drawn.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from lab.present.heatmap import Heatmap, Panel

# cividis (Nuñez, Anderton and Renslow, 2018) grows evenly in lightness, also with a colour
# blindness and in grey; PuOr runs from orange through white to purple, which all eyes tell apart.
SEQUENTIAL = "cividis"
DIVERGING = "PuOr"
UNDEFINED = "#d4d4d4"  # a cell without a value
ACROSS = 4  # panels beside each other
NAMED = 40  # cells of an axis up to which each has its name; of more, every second, fifth, ...
TICKS = 7  # numbers on an axis that has no names
SIZE = 3.0  # inches of a panel's longer side, of one panel alone twice as much


def picture_of(heatmap: Heatmap) -> Any:
    """Return the picture, built without pyplot: no global state, no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    # 1. An empty picture with room for every panel, in the shape of its cells.
    count = len(heatmap.panels)
    down = math.ceil(count / ACROSS)
    across = math.ceil(count / down)  # 6 panels: 3 and 3, not 4 and 2
    width, height = _panel_size(heatmap)
    picture = Canvas(
        figsize=(across * width + 1.6, down * (height + 0.35) + 0.9), layout="constrained"
    )
    FigureCanvasAgg(picture)
    grid = picture.subplots(down, across, squeeze=False)
    places = list(grid.flat)

    # 2. The panels; a place that is left over stays empty. At 10 points 11 letters take an inch.
    norm, colour_map = _colours(heatmap)
    mesh: Any = None
    for axes, panel in zip(places, heatmap.panels, strict=False):
        mesh = _draw_panel(axes, panel, norm=norm, colour_map=colour_map)
        _name_cells(axes.xaxis, heatmap.x_names, panel.shape[1], is_x=True)
        _name_cells(axes.yaxis, heatmap.y_names, panel.shape[0], is_x=False)
        if count > 1:
            axes.set_title(textwrap.fill(panel.label, max(int(width * 11), 10)), fontsize=10)
    for axes in places[count:]:
        axes.set_visible(False)

    # 3. What is common to all panels: title, labels, colour bar.
    picture.suptitle(heatmap.title, fontsize=12)
    picture.supxlabel(heatmap.x_label, fontsize=11)
    picture.supylabel(heatmap.y_label, fontsize=11)
    bar = picture.colorbar(mesh, ax=places, fraction=0.05, pad=0.02)
    bar.set_label(heatmap.value_label)
    bar.outline.set_visible(False)
    return picture


def _panel_size(heatmap: Heatmap) -> tuple[float, float]:
    """Return width and height in inches, in the ratio of the cells but not narrower than 1 : 3."""
    longest = SIZE
    if len(heatmap.panels) == 1:
        longest = 2 * SIZE
    rows = max(panel.shape[0] for panel in heatmap.panels)
    columns = max(panel.shape[1] for panel in heatmap.panels)
    ratio = min(max(columns / rows, 1 / 3), 3)
    if ratio >= 1:
        return longest, longest / ratio
    return max(longest * ratio, 1.6), longest


def _colours(heatmap: Heatmap) -> tuple[Any, Any]:
    """Return norm and colour map: diverging from 0 where the range has both signs."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    low, high = heatmap.colour_range
    name = SEQUENTIAL
    if low < 0 < high:
        # White must mean 0, and equal steps on both sides equal amounts.
        name = DIVERGING
        farthest = max(-low, high)
        low, high = -farthest, farthest
    colour_map = mpl.colormaps[name].with_extremes(bad=UNDEFINED)
    return Normalize(low, high, clip=True), colour_map


def _draw_panel(axes: Any, panel: Panel, *, norm: Any, colour_map: Any) -> Any:
    """Draw the cells of a panel, the first row on top, and return them."""
    import numpy as np

    rows = [[math.nan if value is None else value for value in row] for row in panel.values]
    values = np.ma.masked_invalid(np.array(rows, dtype=float))  # [rows, columns]
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(
        values, norm=norm, cmap=colour_map, interpolation="nearest", aspect="auto", origin="upper"
    )


def _name_cells(axis: Any, names: Sequence[str], cells: int, *, is_x: bool) -> None:
    """Write the names beside the cells, of many cells every so many; without names count from 0."""
    labels = [str(name) for name in names] or [str(position) for position in range(cells)]
    step = 1
    if names:
        step = math.ceil(cells / NAMED)
    else:
        while cells / step > TICKS:
            step = _next_round(step)
    positions = list(range(0, cells, step))
    options: dict[str, Any] = {"fontsize": 9}
    if names:
        longest = max(len(label) for label in labels)
        options["fontsize"] = 7 if cells > 16 else 8
        if is_x and longest * len(positions) > 20:
            options |= {"rotation": 90}
    axis.set_ticks(positions, [labels[position] for position in positions], **options)
    axis.set_tick_params(length=2)


def _next_round(step: int) -> int:
    """Return the next of 1, 2, 5, 10, 20, 50, ..."""
    if str(step).startswith("2"):
        return step * 5 // 2
    return step * 2
