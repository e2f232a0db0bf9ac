"""The benchmark of activations: its rows record the same, its table says what was measured."""

import dataclasses

import pytest
import torch

from tests.benchmarks import activations_vs_peers
from tests.benchmarks._activation_rows import (
    FLOOR,
    HIDDEN,
    LENS,
    OWN,
    POST,
    ROWS,
    SIGHT,
    STATISTICS,
    STREAM,
    load,
    missing,
    run,
)
from tests.benchmarks._turns import Job, RowResult
from tests.benchmarks.activations_vs_peers import Outcome, Parity

IDS = torch.arange(20, 60)[None]


@pytest.fixture(scope="module")
def compared(tiny_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations_vs_peers, "ROWS", (FLOOR, *OWN, HIDDEN))
        return activations_vs_peers.parity(str(tiny_folder), IDS)


def test_rows_record_the_stream_that_transformers_gives(compared):
    assert set(compared) == {*OWN, HIDDEN}
    assert all(found.logits == 0 for found in compared.values())
    for row in (STREAM, POST, HIDDEN):
        assert compared[row].stream == 0, row
    assert compared[STATISTICS].stream is None
    assert compared[STATISTICS].statistics < 1e-12


def test_parity_sees_another_text(tiny_folder):
    with torch.no_grad():
        own = load(STREAM, str(tiny_folder))(IDS)
        other = load(POST, str(tiny_folder))(IDS.flip(1))
        counted = load(STATISTICS, str(tiny_folder))(IDS[:, :20])
    assert activations_vs_peers._of_streams(other, own) > 0.1
    assert activations_vs_peers._of_statistics(counted, own) > 0.01


@pytest.mark.parametrize("row", [FLOOR, *OWN, HIDDEN])
def test_a_row_is_timed(row, tiny_folder):
    threads = torch.get_num_threads()
    result = run(Job(row, str(tiny_folder), IDS[0].tolist(), passes=2, threads=threads))
    assert len(result.seconds) == len(result.cpu_seconds) == 2
    assert min(result.seconds) > 0
    assert result.added > -1e6  # the process may give back what it held before


@pytest.mark.parametrize("row", [LENS, SIGHT])
def test_a_peer_records_the_same_where_it_is_installed(row, tiny_folder):
    if missing(row):
        pytest.skip(f"{row} is not installed")
    with torch.no_grad():
        recorded, own = (load(name, str(tiny_folder))(IDS) for name in (row, STREAM))
    assert set(recorded.stream) == set(own.stream)
    assert activations_vs_peers._of_streams(recorded, own) < 1e-5


def outcome(**changes):
    """Two rounds at two lengths; each row takes its factor times the floor's second."""
    factors = {FLOOR: 1.0, STREAM: 1.05, POST: 1.02, STATISTICS: 1.3, HIDDEN: 1.2} | changes
    ran = {
        row: {
            tokens: [
                RowResult([second * factor] * 3, [second] * 3, int(factor * 1e7))
                for second in (1.0, 4.0)
            ]
            for tokens in (128, 512)
        }
        for row, factor in factors.items()
    }
    found = {
        STREAM: Parity(0.0, stream=0.0),
        STATISTICS: Parity(0.0, statistics=1e-14),
        LENS: Parity(1e-5, stream=1e-6),
    }
    return Outcome(ran, found, 2)


def test_the_table_is_made_of_what_was_measured():
    found = outcome()
    assert found.ratio(STREAM, 512) == pytest.approx(1.05)
    assert found.added(HIDDEN, 512) == pytest.approx(2e6)
    assert found.exact()
    assert all(found.aims().values())
    text = "\n".join(found.lines())
    assert "all positions at most 1.10x the floor: 1.05x" in text
    assert "nnsight, pre + mid + post           not measured: nnsight is not installed" in text
    assert "MISSED" not in text


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({STREAM: 1.2}, "1.10x the floor"),
        ({POST: 1.3}, "faster than transformers"),
        ({POST: 1.3}, "smaller than transformers"),
        ({SIGHT: 1.01}, "faster than nnsight"),
        ({LENS: 1.01}, "smaller than TransformerLens"),
    ],
)
def test_an_aim_can_be_missed(changes, missed):
    found = outcome(**changes)
    assert any(missed in aim for aim, met in found.aims().items() if not met)
    assert "MISSED" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (STREAM, {"logits": 1e-7}),
        (STREAM, {"stream": 1e-9}),
        (LENS, {"stream": 1e-3}),
        (STATISTICS, {"statistics": 1e-6}),
    ],
)
def test_exactness_can_be_missed(row, change):
    found = outcome()
    compared = dict(found.compared)
    compared[row] = dataclasses.replace(compared[row], **change)
    assert not Outcome(found.ran, compared, 2).exact()


def test_every_row_is_named_once():
    assert len(set(ROWS)) == len(ROWS) == 7
