"""What all gates share: each check sees its mutation, and the cache never serves a changed file."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.shared import images, outputs
from lab import present
from lab.contract import Measurement, Result

FIGURE = present.Figure(
    "curve", "Curve", "From 3 to 1.", "step", "nats", (present.Series("a", (0, 1), (3, 1)),)
)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "out"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts/data.jsonl").write_text('{"a": 1}\n')
    result = Result(
        experiment="lab.x",
        title="X",
        question="q?",
        hypothesis="h",
        method="m",
        headline=("loss",),
        measurements={
            "loss": Measurement.of_sample([1.0, 2.5], "nats"),
            "n": Measurement.of_exact(3),
        },
    )
    present.write(folder, result, [FIGURE])
    for name in ("PHASES_INPUTS", "PHASES_NONCE", "PHASES_GATE_CACHE", "PHASES_DIGESTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PHASES_OUT", str(folder))
    return folder


def check_all() -> None:
    outputs.assert_files_match()
    outputs.assert_report_matches()
    outputs.assert_figures_match()


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before


def test_untouched_outputs_pass(out: Path) -> None:
    check_all()


@pytest.mark.parametrize(
    ("path", "change", "check"),
    [
        ("artifacts/data.jsonl", lambda b: b + b"\n", outputs.assert_files_match),
        (
            "figures/curve.png",
            lambda b: b[:-20] + bytes([b[-20] ^ 1]) + b[-19:],
            outputs.assert_files_match,
        ),
        ("result.json", lambda b: b.replace(b'"n": 2', b'"n": 9'), outputs.assert_report_matches),
        ("report.md", lambda b: b.replace(b"1.750", b"1.650"), outputs.assert_report_matches),
        ("report.md", lambda b: b.rpartition(b"<!--")[0], outputs.assert_report_matches),
        ("report.md", lambda b: b + b"more\n", outputs.assert_report_matches),
        ("figures/curve.json", lambda b: b.replace(b"3", b"4"), outputs.assert_figures_match),
        (
            "figures/curve.svg",
            lambda b: b.replace(b"sha256:", b"sha512:"),
            outputs.assert_figures_match,
        ),
        ("figures/curve.png", lambda b: b[:-8], outputs.assert_figures_match),
        ("figures/curve.png", lambda b: b.replace(b"IEND", b"IENC"), outputs.assert_figures_match),
        ("figures/curve.png", lambda b: b"", outputs.assert_figures_match),
    ],
)
def test_each_mutation_is_seen(
    out: Path, path: str, change: Callable[[bytes], bytes], check: Callable[[], None]
) -> None:
    edit(out / path, change)
    with pytest.raises(AssertionError):
        check()


def test_files_more_or_fewer_are_seen(out: Path) -> None:
    (out / "extra.txt").write_text("x")
    with pytest.raises(AssertionError, match=r"not listed: \['extra\.txt'\]"):
        outputs.assert_files_match()
    (out / "extra.txt").unlink()
    (out / "artifacts/data.jsonl").unlink()
    with pytest.raises(AssertionError, match=r"missing: \['artifacts/data\.jsonl'\]"):
        outputs.assert_files_match()


def test_a_listed_path_that_leads_out_is_refused(out: Path) -> None:
    document = json.loads((out / "result.json").read_text())
    document["files"]["../secret"] = "00"
    (out / "result.json").write_text(json.dumps(document))
    with pytest.raises(AssertionError, match="leads out"):
        outputs.assert_files_match()


def test_a_figure_without_its_picture_or_without_its_entry_is_seen(out: Path) -> None:
    (out / "figures/curve.svg").unlink()
    with pytest.raises((AssertionError, FileNotFoundError)):
        outputs.assert_figures_match()
    (out / "figures/other.json").write_text("{}")
    with pytest.raises(AssertionError, match=r"result\.json names the figures"):
        outputs.assert_figures_match()


def test_a_picture_drawn_from_other_data_is_seen_even_if_all_digests_were_renewed(
    out: Path,
) -> None:
    (out / "figures/curve.json").write_text("{}")
    data = outputs.result()["files"] | {
        "figures/curve.json": outputs.digest_of(out / "figures/curve.json")
    }
    (out / "result.json").write_text(json.dumps(outputs.result() | {"files": data}))
    outputs.assert_files_match()
    with pytest.raises(AssertionError, match="was drawn from data with digest"):
        outputs.assert_figures_match()


def test_an_empty_folder_fails_and_nothing_passes_by_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASES_OUT", str(tmp_path))
    for check in (
        outputs.assert_files_match,
        outputs.assert_report_matches,
        outputs.assert_figures_match,
    ):
        with pytest.raises((AssertionError, FileNotFoundError)):
            check()
    monkeypatch.delenv("PHASES_OUT")
    with pytest.raises(AssertionError, match="PHASES_OUT is not set"):
        outputs.out()


def test_nan_in_a_result_is_refused(out: Path) -> None:
    edit(out / "result.json", lambda b: b.replace(b"1.75", b"NaN"))
    with pytest.raises(AssertionError, match="contains NaN"):
        outputs.result()


@pytest.mark.parametrize(
    ("expected", "agrees"),
    [
        (1.75, True), (1.75 * 1.05, False),
        ({"value": 1.75, "stderr": 0.75, "n": 2, "values": [1.0, 2.5]}, True),
        ({"value": 1.75, "stderr": 0.75 * 1.05}, False), ({"value": 1.75, "values": [1.0]}, False),
        ({"value": 1.75, "values": [2.5, 1.0]}, False), ({"value": 1.75, "n": 3}, False),
        (1, False), (True, False),
    ],
)  # fmt: skip
def test_a_measurement_agrees_with_its_own_number_only(
    *, out: Path, expected: object, agrees: bool
) -> None:
    if agrees:
        outputs.assert_agrees("loss", expected)
    else:
        with pytest.raises(AssertionError, match="loss: "):
            outputs.assert_agrees("loss", expected)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [(1, True), (True, 1), (1.0, 1), ("1", 1), (None, 0), (0.05, 0), ([1.0], 1.0), (True, 1.0)],
)
def test_types_are_not_mixed_up(actual: object, expected: object) -> None:
    assert not outputs.same(actual, expected, 1.0)


@given(st.floats(1e-6, 1e6), st.sampled_from([1.05, 0.95, -1.0]))
def test_five_percent_are_never_the_same(value: float, factor: float) -> None:
    assert outputs.same(value, value, 1e-4)
    assert not outputs.same(value * factor, value, 1e-4)


def test_an_exact_measurement_with_a_standard_error_is_refused(out: Path) -> None:
    edit(
        out / "result.json", lambda b: b.replace(b'"exact": true', b'"exact": true, "stderr": 0.1')
    )
    with pytest.raises(AssertionError, match="is exact and has a standard error"):
        outputs.assert_agrees("n", 3)


def test_an_absent_measurement_is_named(out: Path) -> None:
    with pytest.raises(AssertionError, match="no measurement 'los'; it has loss, n"):
        outputs.value("los")


def test_the_sample_of_a_gate_is_that_of_the_contract() -> None:
    values = [1.0, 2.5, 4.0]
    expected = Measurement.of_sample(values, "x").to_json()
    del expected["unit"]
    assert outputs.sample(values) == expected
    assert outputs.sample([2.0])["stderr"] is None


def test_the_nonce_decides_the_sample(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(nonce: str) -> list[int]:
        monkeypatch.setenv("PHASES_NONCE", nonce)
        return outputs.rng().sample(range(1000), 5)

    assert draw("aa") == draw("aa") != draw("bb")


def test_the_cache_computes_once_per_content(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    digests = tmp_path / "digests.json"

    def ask(content: str, nonce: str = "aa", name: str = "sum") -> object:
        digests.write_text(json.dumps({"a.bin": content, "b.bin": "never named"}))
        monkeypatch.setenv("PHASES_NONCE", nonce)
        return outputs.cached(name, ["a.bin"], lambda: calls.append(1) or {"calls": len(calls)})

    # without the runner's variables: computed each time
    assert [ask("1"), ask("1")] == [{"calls": 1}, {"calls": 2}]
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("PHASES_GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PHASES_DIGESTS", str(digests))
    assert [ask("1"), ask("1")] == [{"calls": 3}, {"calls": 3}]
    assert [ask("2"), ask("1", nonce="bb"), ask("1", name="max")] == [
        {"calls": 4},
        {"calls": 5},
        {"calls": 6},
    ]
    assert ask("1") == {"calls": 3} and len(list((tmp_path / "cache").iterdir())) == 4


def test_a_computation_that_fails_leaves_nothing_in_the_cache(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "digests.json").write_text("{}")
    monkeypatch.setenv("PHASES_GATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PHASES_DIGESTS", str(tmp_path / "digests.json"))
    with pytest.raises(ZeroDivisionError):
        outputs.cached("x", [], lambda: 1 // 0)
    assert list((tmp_path / "cache").iterdir()) == []


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    return images.SIGNATURE + b"".join(chunk(*pair) for pair in chunks)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"IHDR", b"tEXt", b"IDAT"]), st.binary(max_size=20)), max_size=5
    ),
    st.data(),
)
def test_chunks_are_read_back_and_no_changed_byte_passes(
    pairs: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    whole = png(*pairs)
    assert list(images.chunks(whole)) == pairs
    mutant = bytearray(whole)
    mutant[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(AssertionError):
        list(images.chunks(bytes(mutant)))
