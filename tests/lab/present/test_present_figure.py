"""Figures: the data is stored, the pictures name it, and what could not be read is refused."""

import json
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from lab.contract import ContractError, Measurement, Result
from lab.digests import sha256
from lab.present import Figure, Series, write

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
RESULT = Result("lab.x", "q?", "h", "m", {"n": Measurement.of_exact(1)})


def written(out: Path, *figures: Figure) -> Path:
    out.mkdir()
    write(out, RESULT, figures)
    return out / "figures"


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


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


def test_the_data_file_holds_what_is_shown(tmp_path: Path) -> None:
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
    first, again = written(tmp_path / "a", LINE), written(tmp_path / "b", LINE)
    for name in ("curve.png", "curve.svg", "curve.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
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


def test_few_places_on_a_logarithmic_axis_are_its_ticks(tmp_path: Path) -> None:
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
    near = tuple(Series(f"run {n}", (0.001, 0.0013, 0.005), (n, n, n)) for n in range(5))
    folder = written(tmp_path / "out", replace(LINE, series=near, x_scale="log"))
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
