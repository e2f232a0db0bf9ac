"""Turning a figure's data into PNG and SVG.

Matplotlib (Agg) is imported here only, and only when a figure is drawn.
"""

from __future__ import annotations

import io
from typing import Any

from lab.present.figure import Figure, Series

# Okabe and Ito (2008), "Color Universal Design": told apart with every common kind of colour
# blindness. Yellow is left out (unreadable on white); black comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = {"solid": "-", "dashed": "--", "dotted": ":"}
LEGEND = 4  # entries for which there is room among the data; a longer legend stands beside them
TICKS = 6  # places on a logarithmic axis whose labels do not run into each other
STYLE = {
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
}


def draw(figure: Figure, digest: str) -> dict[str, bytes]:
    """Give {"png": bytes, "svg": bytes}.

    `digest` (sha256 of the data file) goes into each image's metadata. PNG: a text chunk
    `Data-SHA256`. SVG: `dc:identifier` with `sha256:…`.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        picture = _picture(figure)
        try:
            png = _save(
                picture, "png", {"Data-SHA256": digest, "Title": figure.title, "Software": None}
            )
            svg = _save(
                picture,
                "svg",
                {"Identifier": f"sha256:{digest}", "Title": figure.title, "Date": None},
            )
        finally:
            picture.clear()
    return {"png": png, "svg": svg}


def _picture(figure: Figure) -> Any:
    """Build the picture without pyplot: no global state, no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    crowded = len(figure.series) > LEGEND
    picture = Canvas(figsize=(9.2 if crowded else 7.2, 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    bars = [series for series in figure.series if series.kind == "bar"]
    for place, series in enumerate(figure.series):
        if series.kind == "bar":
            _bars(axes, series, COLOURS[place % 7], bars.index(series), len(bars))
        else:
            _line(axes, series, place)
    axes.set(
        title=figure.title, xlabel=figure.x_label, ylabel=figure.y_label, yscale=figure.y_scale
    )
    if not bars:
        axes.set_xscale(figure.x_scale)
        _ticks_where_measured(axes, figure)
    if crowded:
        picture.legend(frameon=False, loc="outside right upper")
    elif len(figure.series) > 1:
        axes.legend(frameon=False)
    return picture


def _ticks_where_measured(axes: Any, figure: Figure) -> None:
    """On a logarithmic axis with few places, as of ranks or rates: these places, no powers of ten.

    A place closer than a factor 1.5 to the one before gets no label, which would stand on the
    other's.
    """
    places: list[float] = []
    for place in (
        sorted({float(x) for series in figure.series for x in series.x})
        if figure.x_scale == "log"
        else ()
    ):
        if not places or place >= 1.5 * places[-1]:
            places.append(place)
    if 0 < len(places) <= TICKS:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)


def _line(axes: Any, series: Series, place: int) -> None:
    colour = COLOURS[place % 7]
    if series.kind == "points":
        axes.plot(
            series.x, series.y, MARKERS[place % 7], color=colour, label=series.label, markersize=5
        )
    else:
        few = MARKERS[place % 7] if 2 < len(series.x) <= 12 else None
        axes.plot(
            series.x,
            series.y,
            DASHES[series.style],
            color=colour,
            label=series.label,
            marker=few,
            markersize=5,
        )
    if series.band is not None:
        axes.fill_between(series.x, *series.band, color=colour, alpha=0.18, linewidth=0)


def _bars(axes: Any, series: Series, colour: str, place: int, of: int) -> None:
    """Draw one group of bars beside the others, each bar with its value.

    A bar's length alone is read badly.
    """
    from lab.present.numbers import number

    width = 0.8 / of
    x = [i + (place - (of - 1) / 2) * width for i in range(len(series.x))]
    error = None
    if series.band is not None:
        low, high = series.band
        error = [
            [y - a for y, a in zip(series.y, low, strict=True)],
            [b - y for y, b in zip(series.y, high, strict=True)],
        ]
    kept = {"ecolor": "black", "capsize": 3, "error_kw": {"linewidth": 1}}
    drawn = axes.bar(x, series.y, width, yerr=error, color=colour, label=series.label, **kept)
    axes.bar_label(drawn, [number(y, 3) for y in series.y], padding=2, fontsize=9)
    names = [str(name) for name in series.x]
    turn = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        if len("".join(names)) > 55
        else {}
    )
    axes.set_xticks(range(len(names)), names, **turn)
    axes.margins(y=0.12)
    axes.grid(visible=False, axis="x")


def _save(picture: Any, suffix: str, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    picture.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    return buffer.getvalue()
