"""The benchmark of attention: its rows record the same, and its table says what was measured."""

import dataclasses

import pytest
import torch

from tests.benchmarks import attention_vs_peers
from tests.benchmarks._attention_rows import (
    EAGER,
    FLOOR,
    LENS,
    PATTERNS,
    PATTERNS_HALF,
    ROWS,
    SIGHT,
    STATISTICS,
    load,
    missing,
    run,
)
from tests.benchmarks._turns import Job, RowResult
from tests.benchmarks.attention_vs_peers import Outcome, Parity

OWN = (STATISTICS, PATTERNS, PATTERNS_HALF)  # these and eager attention need no other library
IDS = torch.arange(20, 60)[None]


@pytest.fixture(scope="module")
def compared(tiny_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_vs_peers, "ROWS", (FLOOR, *OWN, EAGER))
        return attention_vs_peers.parity(str(tiny_folder), IDS)


def test_rows_record_what_eager_attention_computes(compared):
    assert set(compared) == {*OWN, EAGER}
    assert all(compared[row].logits == 0 for row in OWN)
    assert compared[PATTERNS].patterns < 1e-6
    assert 0 < compared[PATTERNS_HALF].patterns < 2**-11
    assert set(compared[STATISTICS].statistics) == {
        "sink",
        "entropy",
        "distance",
        "previous token",
    }
    assert max(compared[STATISTICS].statistics.values()) < 2e-5
    assert compared[STATISTICS].patterns is None


def test_parity_sees_another_text(tiny_folder):
    with torch.no_grad():
        eager = load(EAGER, str(tiny_folder))(IDS.flip(1))
        recorded = load(STATISTICS, str(tiny_folder))(IDS)
    differences = attention_vs_peers._of_statistics(recorded, eager)
    assert min(differences.values()) > 4e-4


@pytest.mark.parametrize("row", [FLOOR, *OWN, EAGER])
def test_a_row_is_timed(row, tiny_folder):
    threads = torch.get_num_threads()
    result = run(Job(row, str(tiny_folder), IDS[0].tolist(), passes=2, threads=threads))
    assert len(result.seconds) == len(result.cpu_seconds) == 2
    assert min(result.seconds) > 0
    assert result.added >= 0


@pytest.mark.parametrize("row", [LENS, SIGHT])
def test_a_peer_records_the_same_where_it_is_installed(row, tiny_folder):
    if missing(row):
        pytest.skip(f"{row} is not installed")
    with torch.no_grad():
        recorded, eager = (load(name, str(tiny_folder))(IDS) for name in (row, EAGER))
    assert attention_vs_peers._largest(zip(recorded.patterns, eager.patterns, strict=True)) < 1e-6


def outcome(**changes):
    """Two rounds at two lengths; each row takes its factor times the floor's second."""
    factors = {FLOOR: 1.0, STATISTICS: 1.2, PATTERNS: 1.5, PATTERNS_HALF: 1.6, EAGER: 2.0} | changes
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
    compared = {
        STATISTICS: Parity(0.0, statistics={"sink": 1e-7}),
        PATTERNS: Parity(0.0, patterns=1e-6),
        EAGER: Parity(1e-5, patterns=0.0),
    }
    return Outcome(ran, compared, 2)


def test_the_table_is_made_of_what_was_measured():
    found = outcome()
    assert found.ratio(STATISTICS, 512) == pytest.approx(1.2)
    assert found.added(EAGER, 512) == pytest.approx(1e7)
    assert found.exact()
    assert all(found.aims().values())
    text = "\n".join(found.lines())
    assert "statistics at most 1.25x the floor: 1.20x" in text
    assert "nnsight, trace                      not measured: nnsight is not installed" in text
    assert "MISSED" not in text


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({STATISTICS: 1.3}, "1.25x"),
        ({STATISTICS: 7.0}, "+50 MB"),
        ({PATTERNS: 2.1}, "patterns faster than eager"),
        ({PATTERNS: 2.1}, "patterns smaller than eager"),
        ({SIGHT: 1.1}, "patterns faster than nnsight"),
    ],
)
def test_an_aim_can_be_missed(changes, missed):
    found = outcome(**changes)
    assert any(missed in aim for aim, met in found.aims().items() if not met)
    assert "MISSED" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (PATTERNS, {"logits": 1e-7}),
        (PATTERNS, {"patterns": 1e-4}),
        (STATISTICS, {"statistics": {"entropy": 0.1}}),
    ],
)
def test_exactness_can_be_missed(row, change):
    found = outcome()
    compared = dict(found.compared)
    compared[row] = dataclasses.replace(compared[row], **change)
    assert not Outcome(found.ran, compared, 2).exact()


def test_every_row_is_named_once():
    assert len(set(ROWS)) == len(ROWS) == 7
