"""Heatmaps: the data is stored, every cell is drawn, and what could not be read is refused."""

import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest

from lab.contract import ContractError, Heatmap, Measurement, Panel, Result
from lab.digests import sha256
from lab.present import write
from lab.present.draw import draw
from lab.present.draw_heatmap import UNDEFINED

MAP = Heatmap(
    name="sink_share",
    title="Sink share",
    caption="It grows.",
    x_label="head",
    y_label="layer",
    value_label="share",
    panels=(Panel("natural", ((0.0, 0.5), (1.0, None))),),
)
RESULT = Result(
    experiment="lab.x",
    title="X",
    question="q?",
    hypothesis="h",
    method="m",
    headline=(),
    measurements={"n": Measurement.of_exact(1)},
)


def svg_of(heatmap: Heatmap) -> str:
    return draw(heatmap, "0" * 64)["svg"].decode()


def texts_of(heatmap: Heatmap) -> list[str]:
    return [html.unescape(text) for text in re.findall(r">([^<>]+)</text>", svg_of(heatmap))]


def pixels_of(heatmap: Heatmap) -> np.ndarray:
    """Return the PNG's pixels [height, width, 4], 0 to 255."""
    image = mpl.image.imread(io.BytesIO(draw(heatmap, "0" * 64)["png"]))
    return (image * 255).round().astype(int)


def has_colour(heatmap: Heatmap, colour: str) -> bool:
    """Say whether a tenth of a percent of the picture or more has this colour."""
    expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    distance = abs(pixels_of(heatmap)[..., :3] - expected).max(-1)
    return bool((distance <= 2).mean() > 0.001)


def test_each_image_names_the_digest_of_the_data_beside_it(tmp_path: Path) -> None:
    write(tmp_path, RESULT, (MAP,))
    folder = tmp_path / "figures"
    data = (folder / "sink_share.json").read_bytes()
    stored = json.loads(data)
    assert stored["panels"][0]["values"] == [[0.0, 0.5], [1.0, None]]
    assert stored["value_label"] == "share"
    digest = sha256(data)
    svg = (folder / "sink_share.svg").read_text()
    assert f"<dc:identifier>sha256:{digest}</dc:identifier>" in svg
    png = (folder / "sink_share.png").read_bytes()
    assert b"Data-SHA256\x00" + digest.encode() in png
    assert "figures/sink_share.png" in (tmp_path / "report.md").read_text()


def test_the_same_data_gives_the_same_bytes_and_one_other_cell_others() -> None:
    other = replace(MAP, panels=(Panel("natural", ((0.0, 0.6), (1.0, None))),))
    for suffix in ("png", "svg"):
        assert draw(MAP, "0" * 64)[suffix] == draw(MAP, "0" * 64)[suffix]
        assert draw(MAP, "0" * 64)[suffix] != draw(other, "0" * 64)[suffix]


def test_texts_panels_and_names_are_drawn() -> None:
    panels = tuple(Panel(f"panel {n}", ((0.0, 0.5), (1.0, 0.2))) for n in range(5))
    texts = texts_of(replace(MAP, panels=panels, x_names=("$a", "b_"), y_names=("<x>", "y")))
    assert {"Sink share", "head", "layer", "share", "$a", "b_", "<x>", "y"} <= set(texts)
    assert [text for text in texts if text.startswith("panel")] == [f"panel {n}" for n in range(5)]
    assert "It grows." not in texts  # the caption is the report's


def test_an_undefined_cell_is_grey_and_others_are_not() -> None:
    assert has_colour(MAP, UNDEFINED)
    assert not has_colour(replace(MAP, panels=(Panel("a", ((0.0, 0.5), (1.0, 0.2))),)), UNDEFINED)


def test_colours_diverge_from_zero_only_where_both_signs_are() -> None:
    colour_map = mpl.colormaps["PuOr"]
    white = mpl.colors.to_hex(colour_map(0.5))
    signed = replace(MAP, panels=(Panel("a", ((-0.5, 0.0), (0.25, 0.0))),))
    assert has_colour(signed, white)
    assert not has_colour(MAP, white)
    # the range is symmetric: -0.5 has the colour of the far end, 0.25 that of half the other side
    assert has_colour(signed, mpl.colors.to_hex(colour_map(0.0)))
    assert has_colour(signed, mpl.colors.to_hex(colour_map(0.75)))


def test_the_colour_range_is_the_given_one() -> None:
    assert replace(MAP, low=0, high=2).colour_range == (0, 2)
    assert MAP.colour_range == (0.0, 1.0)
    assert "1.75" in texts_of(replace(MAP, low=0, high=2))
    assert "1.75" not in texts_of(MAP)


def test_the_sequential_map_grows_in_lightness() -> None:
    colours = mpl.colormaps["cividis"](np.linspace(0, 1, 32))[:, :3]
    grey = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey) > 0).all()


def test_many_cells_have_ticks_that_fit() -> None:
    values = tuple(tuple(float(q >= k) for k in range(200)) for q in range(200))
    texts = texts_of(replace(MAP, panels=(Panel("a", values),)))
    assert {"0", "50", "150"} <= set(texts)
    assert len(texts) < 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Panel("a", ((1.0,), (1.0, 2.0))), "rows of 1, 2 values"),
        (lambda: Panel("a", ()), "no row"),
        (lambda: Panel("a", ((),)), "rows of 0 values"),
        (lambda: replace(MAP, name="a/b"), "snake_case"),
        (lambda: replace(MAP, caption=" "), "no caption"),
        (lambda: replace(MAP, panels=()), "shows no value"),
        (lambda: replace(MAP, panels=(Panel("a", ((None,),)),)), "shows no value"),
        (lambda: replace(MAP, x_names=("a",)), "1 x_names beside 2 cells"),
        (lambda: replace(MAP, y_names=("a", "b", "c")), "3 y_names beside 2 cells"),
        (lambda: replace(MAP, low=2), "low 2 is above high 1.0"),
    ],
)
def test_an_unreadable_heatmap_is_refused(make: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make()


def test_nan_is_refused_and_numpy_becomes_plain(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="NaN"):
        write(tmp_path, RESULT, (replace(MAP, panels=(Panel("a", ((float("nan"),),)),)),))
    panel = Panel("a", np.eye(2, dtype="float32"))
    assert panel.values == ((1.0, 0.0), (0.0, 1.0))
    assert type(panel.values[0][0]) is float
