"""Turning a figure's data into PNG and SVG.

Matplotlib (Agg) is imported here only, and only when a figure is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

from lab.present.draw_heatmap import picture_of
from lab.present.figure import Figure, Series
from lab.present.heatmap import Heatmap
from lab.present.numbers import number, tick, tick_labels

# Okabe and Ito (2008), "Color Universal Design": told apart with every common kind of colour
# blindness. Yellow is left out (unreadable on white); black comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}
SIZE, SIZE_WITH_LEGEND = (7.2, 4.2), (9.2, 4.2)  # inches
SMALL = 1e-3  # an axis of smaller numbers has no decimals but exponents, at every tick
LEGEND = 4  # entries for which there is room among the data; a longer legend is beside them
TICKS = 6  # labels on a logarithmic axis that do not overlap
MEASURED = 12  # x values up to which they may be the ticks themselves
NEAREST = 1.5  # factor between two measured positions below which the second gets no label
TILTED = 55  # characters of all category names together above which they are tilted
STYLE: Any = {  # matplotlib has a type with a literal for each key
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "lab",  # the same data gives the same bytes
    "text.parse_math": False,  # "$5 to $10" is money, not a formula: text is drawn as written
}


def draw(figure: Figure | Heatmap, digest: str) -> dict[str, bytes]:
    """Return {"png": bytes, "svg": bytes}.

    `digest` (sha256 of the data file) goes into each image's metadata. PNG: a text chunk
    `Data-SHA256`. SVG: `dc:identifier` with `sha256:…`.
    """
    import matplotlib as mpl

    png_fields = {"Data-SHA256": digest, "Title": figure.title, "Software": None}
    svg_fields = {"Identifier": f"sha256:{digest}", "Title": figure.title, "Date": None}
    # Saving is inside too: tick labels are made only when the picture is rendered.
    with mpl.rc_context(STYLE):
        if isinstance(figure, Heatmap):
            picture = picture_of(figure)
        else:
            picture = _picture(figure)
        try:
            return {
                "png": _save(picture, "png", png_fields),
                "svg": _save(picture, "svg", svg_fields),
            }
        finally:
            picture.clear()


def _picture(figure: Figure) -> Any:
    """Return the picture, built without pyplot: no global state, no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    # 1. An empty picture.
    picture = Canvas(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()

    # 2. The series, each in the colour of its group.
    bars = [series for series in figure.series if series.kind == "bar"]
    groups_of_points = {
        series.group for series in figure.series if series.kind == "points" and series.group
    }
    handles = []
    for series, colour in zip(figure.series, colours(figure.series), strict=True):
        if series.kind == "bar":
            handle = _bars(axes, series, colour, rank=bars.index(series), groups=len(bars))
        else:
            # A marker on a mean would look like one more of the points that it averages.
            is_marked = series.kind == "points" or series.group not in groups_of_points
            handle = _line(axes, series, colour, is_marked=is_marked)
        handles.append(handle)

    # 3. The axes.
    axes.set(title=figure.title, xlabel=figure.x_label, ylabel=figure.y_label)
    _scale_axes(axes, figure, has_names=bool(bars))

    # 4. The legend: among the data if there is room, else beside them in a wider picture.
    labels = [series.label for series in figure.series]
    is_crowded = len(labels) > LEGEND
    if 1 < len(labels) <= LEGEND:
        legend = _legend(axes, handles, labels, loc="best")
        is_crowded = _hides_data(legend, picture, axes)
        if is_crowded:
            legend.remove()
    if is_crowded:
        picture.set_size_inches(SIZE_WITH_LEGEND)
        _legend(picture, handles, labels, loc="outside right upper")
    return picture


def _scale_axes(axes: Any, figure: Figure, *, has_names: bool) -> None:
    """Set scales and ticks; has_names: those of x are the names of bars.

    Ticks come last: they depend on the limits, and these on the data.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    # 1. Across.
    if not has_names:
        axes.set_xscale(figure.x_scale)
    if figure.x_scale == "log" and not has_names:
        _label_log_axis(axes.xaxis, _measured_ticks(figure))
    elif not has_names and all(isinstance(x, int) for one in figure.series for x in one.x):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))

    # 2. Upwards.
    axes.set_yscale(figure.y_scale)
    if figure.y_scale == "log":
        _label_log_axis(axes.yaxis, [])
    elif max(abs(limit) for limit in axes.get_ylim()) < SMALL:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, position: tick(value)))


def colours(series: Sequence[Series]) -> list[int]:
    """Return each series' number in COLOURS (and MARKERS): the same for all of one group."""
    numbers: dict[tuple[str, str | int], int] = {}
    chosen = []
    for position, one in enumerate(series):
        # A series without a group is a group of its own.
        key: tuple[str, str | int] = ("alone", position)
        if one.group is not None:
            key = ("group", one.group)
        chosen.append(numbers.setdefault(key, len(numbers)) % len(COLOURS))
    return chosen


def _legend(parent: Any, handles: Sequence[Any], labels: Sequence[str], *, loc: str) -> Any:
    # Matplotlib drops entries whose label begins with an underscore; so the entries get plain
    # labels first and their text afterwards.
    placeholders = [str(position) for position in range(len(labels))]
    legend = parent.legend(handles, placeholders, frameon=False, loc=loc)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    return legend


def _hides_data(legend: Any, picture: Any, axes: Any) -> bool:
    """Return whether the legend lies on a line, a point, a band or a bar."""
    picture.draw_without_rendering()  # the layout, and the legend's place, are chosen here
    box = legend.get_window_extent()
    for line in axes.lines:
        path = line.get_transform().transform_path(line.get_path())
        is_line = line.get_linestyle() != "None"
        crosses = is_line and path.intersects_bbox(box, filled=False)
        if crosses or box.count_contains(path.vertices):
            return True
    for area in axes.collections:
        for path in area.get_paths():
            if area.get_transform().transform_path(path).intersects_bbox(box):
                return True
    return any(bar.get_window_extent().overlaps(box) for bar in axes.patches)


def _measured_ticks(figure: Figure) -> list[float]:
    """Return the x values as ticks where they are few, as of ranks or rates; else none.

    A value closer than a factor NEAREST to the one before is left out: their labels would overlap.
    """
    values = sorted({float(x) for series in figure.series for x in series.x})
    ticks: list[float] = []
    for x in values:
        if not ticks or x >= NEAREST * ticks[-1]:
            ticks.append(x)
    few = len(values) <= MEASURED and len(ticks) <= TICKS
    # One tick for several values, as of 3.1 to 3.8, tells no distance.
    if not few or len(ticks) < min(len(values), 2):
        return []
    return ticks


def _label_log_axis(axis: Any, measured: Sequence[float]) -> None:
    """Label a logarithmic axis with plain numbers, at `measured` or at ticks that fit its range."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_minor_formatter(NullFormatter())
    if measured:
        axis.set_ticks(list(measured), tick_labels(measured))
        axis.set_ticks([], minor=True)
        return
    axis.set_major_formatter(FuncFormatter(lambda value, position: tick(value)))
    low, high = sorted(axis.get_view_interval())
    # Two powers of ten say where everything is; with fewer, the reader needs numbers between them.
    if math.floor(math.log10(high)) - math.ceil(math.log10(low)) < 1:
        axis.set_ticks(ticks_within(low, high))


def ticks_within(low: float, high: float) -> list[float]:
    """Return at most TICKS round numbers between `low` and `high`, less than two decades apart."""
    from matplotlib.ticker import MaxNLocator

    # 1. Multiples of powers of ten, the coarsest steps that leave three.
    first = math.floor(math.log10(low))
    last = math.floor(math.log10(high))
    for factors in ((1, 3), (1, 2, 5), range(1, 10)):
        ticks = []
        for exponent in range(first, last + 1):
            ticks += [float(f"{factor}e{exponent}") for factor in factors]
        ticks = [value for value in ticks if low <= value <= high]
        if 3 <= len(ticks) <= TICKS:
            return ticks
    # 2. A narrow range, such as 3.1 to 3.8: equal steps.
    steps = MaxNLocator(TICKS - 1).tick_values(low, high)
    return [float(value) for value in steps if low <= value <= high]


def _line(axes: Any, series: Series, colour: int, *, is_marked: bool) -> Any:
    """Draw points or a line, with its band; return what the legend shows of it."""
    shade = COLOURS[colour]
    marker: str | None = MARKERS[colour]
    style = DASHES[series.style]
    if series.kind == "points":
        style = ""
    elif not is_marked or not 2 < len(series.x) <= 12:
        marker = None  # of many points the line alone is readable
    (handle,) = axes.plot(
        series.x, series.y, linestyle=style, color=shade, marker=marker, markersize=5
    )
    if series.band is not None:
        axes.fill_between(series.x, *series.band, color=shade, alpha=0.18, linewidth=0)
    return handle


def _bars(axes: Any, series: Series, colour: int, *, rank: int, groups: int) -> Any:
    """Draw bars beside those of the other series, each with its value; return them.

    The value is written above each bar because a bar's length alone is read badly. `rank`: which
    of the `groups` series of bars this is.
    """
    # 1. Where the bars are, and their error bars: distances from y, as matplotlib asks for.
    width = 0.8 / groups
    shift = (rank - (groups - 1) / 2) * width
    x = [position + shift for position in range(len(series.x))]
    error = None
    if series.band is not None:
        low, high = series.band
        below = [y - edge for y, edge in zip(series.y, low, strict=True)]
        above = [edge - y for y, edge in zip(series.y, high, strict=True)]
        error = [below, above]

    # 2. The bars and their values.
    handle = axes.bar(
        x,
        series.y,
        width,
        yerr=error,
        color=COLOURS[colour],
        ecolor="black",
        capsize=3,
        error_kw={"linewidth": 1},
    )
    axes.bar_label(handle, [number(y, 3) for y in series.y], padding=2, fontsize=9)

    # 3. The names of the categories, tilted where they would overlap.
    names = [str(name) for name in series.x]
    tilt: dict[str, Any] = {}
    if len("".join(names)) > TILTED:
        tilt = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **tilt)
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")
    return handle


def _save(picture: Any, suffix: Literal["png", "svg"], metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    picture.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    return buffer.getvalue()
