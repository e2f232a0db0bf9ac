"""Figures: the data is stored, the pictures name it, and what could not be read is refused."""

import html
import itertools
import json
import math
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import ContractError, Measurement, Result
from lab.digests import sha256
from lab.present import Figure, Series, write
from lab.present.draw import colours, draw, ticks_within
from lab.present.numbers import tick, tick_labels

LINE = Figure(
    "curve",
    "Loss",
    "It falls.",
    "step",
    "loss (nats)",
    (Series("true", (0, 1, 2), (3.0, 2.0, 1.5)),),
)
NF4 = Series("nf4", ("weights", "rest"), (2.0, 1.0), ((1.9, 0.8), (2.2, 1.1)), kind="bar")
BF16 = Series("bf16", ("weights", "rest"), (4.0, 1.0), kind="bar")
BARS = Figure("memory", "Memory", "Weights lead.", "part", "MiB", (NF4, BF16))
RESULT = Result(
    experiment="lab.x",
    title="X",
    question="q?",
    hypothesis="h",
    method="m",
    headline=("n",),
    measurements={"n": Measurement.of_exact(1)},
)


def written(out: Path, *figures: Figure) -> Path:
    out.mkdir()
    write(out, RESULT, figures)
    return out / "figures"


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    offset = 8
    chunks = []
    while offset < len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        chunks.append((data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]))
        offset += 12 + length
    return chunks


def svg_texts(figure: Figure) -> list[str]:
    """Return the texts of the drawn SVG, where `svg.fonttype: none` keeps text as text."""
    svg = draw(figure, "0" * 64)["svg"].decode()
    return [html.unescape(text) for text in re.findall(r">([^<>]+)</text>", svg)]


def pixels(data: bytes) -> bytes:
    return zlib.decompress(b"".join(body for kind, body in png_chunks(data) if kind == b"IDAT"))


def test_each_image_names_the_digest_of_the_data_beside_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", LINE, BARS)
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{s}" for n in ("curve", "memory") for s in ("json", "png", "svg")
    }
    for name in ("curve", "memory"):
        digest = sha256((folder / f"{name}.json").read_bytes())
        texts = dict(
            body.split(b"\0", 1)
            for kind, body in png_chunks((folder / f"{name}.png").read_bytes())
            if kind == b"tEXt"
        )
        assert texts[b"Data-SHA256"].decode() == digest
        assert re.findall(
            "<dc:identifier>(.*)</dc:identifier>", (folder / f"{name}.svg").read_text()
        ) == [f"sha256:{digest}"]


def test_the_data_file_contains_what_is_shown(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", LINE, BARS)
    curve, memory = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("curve", "memory")
    )
    assert curve["series"][0]["y"] == [3.0, 2.0, 1.5] and curve["caption"] == "It falls."
    assert memory["series"][0]["x"] == ["weights", "rest"] and memory["series"][0]["band"] == [
        [1.9, 0.8],
        [2.2, 1.1],
    ]


def test_the_same_data_gives_the_same_bytes_and_other_data_other_pixels(tmp_path: Path) -> None:
    first = written(tmp_path / "a", LINE)
    second = written(tmp_path / "b", LINE)
    for name in ("curve.png", "curve.svg", "curve.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    moved = replace(LINE, series=(Series("true", (0, 1, 2), (3.0, 2.0, 1.6)),))
    other = written(tmp_path / "c", moved)
    assert pixels((other / "curve.png").read_bytes()) != pixels((first / "curve.png").read_bytes())


@pytest.mark.parametrize(
    "change", [{"x_scale": "log"}, {"y_scale": "log"}, {"title": "Other"}, {"y_label": "bits"}]
)
def test_every_field_is_drawn(tmp_path: Path, change: dict[str, str]) -> None:
    plain, other = written(tmp_path / "a", LINE), written(tmp_path / "b", replace(LINE, **change))
    assert pixels((plain / "curve.png").read_bytes()) != pixels((other / "curve.png").read_bytes())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("a", (1, 2), (1.0,)), "2 values beside 1 of y"),
        (lambda: Series("a", (1,), (1.0,), ((1.0,), (1.0, 2.0))), "2 values beside 1 of y"),
        (lambda: replace(LINE, name="a/b"), "snake_case"),
        (lambda: replace(LINE, caption=" "), "no caption"),
        (lambda: replace(LINE, series=()), "shows no value"),
        (lambda: replace(LINE, series=(Series("a", (), ()),)), "shows no value"),
    ],
)
def test_an_unreadable_figure_is_refused(make: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make()


def test_a_figure_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="NaN"):
        written(tmp_path / "out", replace(LINE, series=(Series("a", (0,), (float("nan"),)),)))


def test_nine_categories_keep_their_names_apart(tmp_path: Path) -> None:
    names = tuple(f"a rather long category {i}" for i in range(9))
    wide = replace(BARS, series=(Series("a", names, tuple(range(1, 10)), kind="bar"),))
    svg = (written(tmp_path / "out", wide) / "memory.svg").read_text()
    assert all(name in svg for name in names) and svg.count("rotate(-30") >= 9


def test_few_x_values_on_a_logarithmic_axis_are_its_ticks(tmp_path: Path) -> None:
    def labels(*ranks: float) -> set[str]:
        series = (Series("loss", ranks, tuple(range(len(ranks))), kind="points"),)
        folder = written(tmp_path / str(len(ranks)), replace(LINE, series=series, x_scale="log"))
        return set(re.findall(r">([^<>]+)</text>", (folder / "curve.svg").read_text()))

    assert {"8", "16", "64"} <= labels(8, 16, 64)
    many = labels(8, 16, 32, 64, 128, 256, 512)  # control: too many, so powers of ten
    assert {"16", "64", "512"} & many == set()


def test_a_close_neighbour_gets_no_label_and_a_long_legend_leaves_the_data_free(
    tmp_path: Path,
) -> None:
    close = tuple(Series(f"run {n}", (0.001, 0.0013, 0.005), (n, n, n)) for n in range(5))
    folder = written(tmp_path / "out", replace(LINE, series=close, x_scale="log"))
    drawn = re.findall(r">([^<>]+)</text>", (folder / "curve.svg").read_text())
    assert "0.001" in drawn
    assert "0.0013" not in drawn
    width, other = (
        struct.unpack(">I", data[16:20])[0]
        for data in (
            (folder / "curve.png").read_bytes(),
            (written(tmp_path / "few", LINE) / "curve.png").read_bytes(),
        )
    )
    assert width > other


def test_a_legend_that_would_lie_on_the_data_is_beside_them() -> None:
    def width(*series: Series) -> int:
        png = draw(replace(LINE, series=series), "0" * 64)["png"]
        return int(struct.unpack(">I", png[16:20])[0])

    x = tuple(range(40))
    ends = tuple(10.0 * (step % 2) for step in x)  # up and down through the whole picture
    wide = width(Series("a", x, ends), Series("b", x, ends))
    narrow = width(Series("a", x, x), Series("b", x, x))
    assert wide > narrow
    assert width(Series("a", x, ends, kind="points"), Series("b", x, [v / 2 for v in ends])) == wide
    band = ([0.0] * 40, [10.0] * 40)
    assert width(Series("a", x, [5.0] * 40, band), Series("b", x, [1.0] * 40)) == wide
    names = tuple(f"n{number}" for number in range(8))
    bars = [Series(label, names, [5.0] * 8, kind="bar") for label in ("a", "b")]
    assert width(*bars) == wide
    assert width(Series("alone", x, ends)) == narrow


def test_small_numbers_are_whole_at_every_tick() -> None:
    """Matplotlib's default is a factor in a corner, 1e-6, that belongs to all ticks."""
    bars = Series("one", ("a", "b"), (2e-6, 4e-6), kind="bar")
    assert {"1e-6", "2e-6", "3e-6"} <= set(svg_texts(replace(BARS, series=(bars,))))


def test_the_group_of_a_series_is_stored(tmp_path: Path) -> None:
    series = (Series("a", (0,), (1.0,), group="seeds"), Series("b", (0,), (1.0,)))
    folder = written(tmp_path / "out", replace(LINE, series=series))
    stored = json.loads((folder / "curve.json").read_text())["series"]
    assert [one["group"] for one in stored] == ["seeds", None]


def test_a_group_has_one_colour_and_each_group_the_next() -> None:
    names = ["r8", "r8", None, "r16", None, "r8"]
    series = [Series("s", (1,), (1.0,), group=name) for name in names]
    assert colours(series) == [0, 0, 1, 2, 3, 0]
    # control: a group's name cannot meet the position of a series without one
    assert colours([Series("s", (1,), (1.0,)), Series("s", (1,), (1.0,), group="0")]) == [0, 1]


def test_points_and_the_line_of_their_group_are_drawn_in_one_colour() -> None:
    def line_colours(group: str | None) -> set[str]:
        points = Series("runs", (1, 2, 3), (1.0, 2.0, 4.0), kind="points", group=group)
        mean = Series("mean", (1, 2, 3), (1.0, 2.0, 4.0), group=group)
        svg = draw(replace(LINE, series=(points, mean)), "0" * 64)["svg"].decode().lower()
        return {colour for colour in ("#0072b2", "#d55e00") if colour in svg}

    assert line_colours("r8") == {"#0072b2"}
    assert line_colours(None) == {"#0072b2", "#d55e00"}


def test_a_mean_has_no_marker_that_looks_like_one_more_of_its_points() -> None:
    def markers(group: str | None) -> int:
        points = Series("runs", (1, 2, 3), (1.0, 2.0, 4.0), kind="points", group="r8")
        mean = Series("mean", (1, 2, 3), (1.5, 2.5, 4.5), group=group)
        svg = draw(replace(LINE, series=(points, mean)), "0" * 64)["svg"].decode()
        drawn = svg.split('id="axes_1"')[1].split('id="legend_1"')[0]
        # A tick is one mark; a series with markers has one for each of its three values.
        marks = [part.count("<use ") for part in drawn.split('id="line2d_')]
        return marks.count(3)

    assert markers("r8") == 1  # the points alone
    assert markers("other") == 2  # the points, and a line of another group


@pytest.mark.parametrize(
    "text",
    ["$5 to $10_", r"$\frac$", r"$x^{2}$", "a_b^c", "_hidden", "50 % & <more>", r"\$5"],
)
def test_text_is_drawn_as_written(text: str) -> None:
    line = (Series(text, (0, 1), (1.0, 2.0)), Series("other", (0, 1), (2.0, 1.0)))
    figure = replace(LINE, title=text, x_label=text, y_label=text, series=line)
    assert svg_texts(figure).count(text) == 4  # title, two labels of axes, legend
    bars = (Series("_a", (text, "x"), (1.0, 2.0), kind="bar"), replace(NF4, x=(text, "x")))
    drawn = svg_texts(replace(BARS, series=bars))
    assert drawn.count(text) == 1
    assert "_a" in drawn


def test_a_long_legend_shows_labels_that_begin_with_an_underscore() -> None:
    series = tuple(Series(f"_{n}", (0, 1), (1.0, float(n))) for n in range(6))
    assert {f"_{n}" for n in range(6)} <= set(svg_texts(replace(LINE, series=series)))


@pytest.mark.parametrize("scale", ["x_scale", "y_scale"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((30, 95, 40, 41, 42, 43, 44), {"30", "60", "90"}),  # less than a decade
        ((1, 40, 2, 3, 4, 5, 6), {"1", "10"}),
        ((20, 3000, 21, 22, 23, 24, 25), {"100", "1,000"}),
        ((1e-6, 1e-2, 2e-6, 3e-6, 4e-6, 5e-6, 6e-6), {"1e-5", "1e-4", "0.001"}),
        ((3.1, 3.8, 3.2, 3.3, 3.4, 3.5, 3.6), {"3.2", "3.4", "3.6"}),
        ((20, 200, 30, 40, 50, 60, 70), {"20", "50", "100", "200"}),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_plain_numbers(
    scale: str, values: tuple[float, ...], expected: set[str]
) -> None:
    # More values than may be ticks themselves; the other axis has ticks of its own.
    ordered = tuple(sorted([*values, *(values[0] * (1 + step / 100) for step in range(1, 9))]))
    steps = tuple(float(step) for step in range(7001, 7001 + len(ordered)))
    columns = {"x_scale": (ordered, steps), "y_scale": (steps, ordered)}
    line = Series("s", *columns[scale])
    texts = svg_texts(replace(LINE, series=(line,), **{scale: "log"}))
    assert expected <= set(texts)
    assert not [text for text in texts if "×" in text or "$" in text or "^" in text]
    assert max(texts.count(text) for text in expected) == 1


@given(st.floats(1e-9, 1e9), st.floats(1.05, 90.0))
def test_a_short_logarithmic_axis_has_a_few_ticks_apart(low: float, factor: float) -> None:
    high = low * factor
    ticks = ticks_within(low, high)
    assert 2 <= len(ticks) <= 6
    assert all(low <= value <= high for value in ticks)
    span = math.log(high / low)
    assert all(math.log(b / a) > span / 20 for a, b in itertools.pairwise(ticks))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (60, "60"),
        (0.001, "0.001"),
        (2000, "2,000"),
        (1e-5, "1e-5"),
        (2.5e-4, "2.5e-4"),
        (0, "0"),
        (3.25, "3.25"),
        (1e6, "1e6"),
        (999_999, "999,999"),
    ],
)
def test_a_tick_is_a_plain_number(value: float, text: str) -> None:
    assert tick(value) == text


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1e-5, 2e-4, 1e-3, 5e-3], ["1e-5", "2e-4", "1e-3", "5e-3"]),
        ([0.001, 0.005], ["0.001", "0.005"]),
        ([1, 10, 60], ["1", "10", "60"]),
        ([1e-4, 1, 2000], ["1e-4", "1", "2,000"]),
    ],
)
def test_the_ticks_of_one_axis_have_one_form(values: list[float], labels: list[str]) -> None:
    assert tick_labels(values) == labels


def test_an_axis_of_steps_has_whole_numbers() -> None:
    steps = Series("loss", range(1, 21), [100.0 - step for step in range(20)])
    figure = Figure("steps", "Steps", "From 100 to 81.", "step", "nats", (steps,))
    svg = draw(figure, "0" * 64)["svg"].decode()
    assert ">5<" in svg
    assert ">7.5<" not in svg
