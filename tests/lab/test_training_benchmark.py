"""The benchmark of training: its rows do the same work, and its table says what was measured."""

import numpy as np
import pytest
import torch

from lab.instruments import adapters, models
from tests.benchmarks import training_vs_trl
from tests.benchmarks._training_rows import OURS, PLAIN, ROWS, Job, RowResult, adapted, run

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def test_rows_start_from_the_same_adapters(tiny_folder):
    ours, theirs = (
        adapters.state(adapted(models.load(tiny_folder, dtype=torch.float32), quick=quick))
        for quick in (True, False)
    )
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.soak
def test_this_loop_and_the_plain_one_learn_the_same(tiny_folder, tmp_path):
    ran, losses = {}, {}
    for row in (OURS, PLAIN):
        job = Job(
            row, str(tiny_folder), "float32", steps=3, max_tokens=120, threads=1, evaluate=True
        )
        ran[row] = run(job, tmp_path / "losses.npz")
        with np.load(tmp_path / "losses.npz") as arrays:
            losses[row] = arrays["losses"]
    assert ran[OURS].total == ran[PLAIN].total
    assert ran[OURS].supervised == ran[PLAIN].supervised
    assert len(ran[OURS].seconds) == len(ran[OURS].total) == 3
    assert np.allclose(losses[OURS], losses[PLAIN], atol=2e-3)
    assert all(flops > 0 for flops in ran[OURS].flops)


def outcome(trl_seconds, shift):
    """Two rounds of two steps of 100 tokens.

    Ours takes a second a step, and its losses are 2 nats and some noise.
    """
    rng = np.random.default_rng(0)
    losses = 2 + rng.normal(size=40)
    example_ids = np.repeat(np.arange(10), 4)

    def ran(seconds, flops):
        return [
            RowResult([9.0, seconds], [100, 100], [40, 40], 2_000_000, 1_000_000, [flops, flops])
        ] * 2

    seconds = dict.fromkeys(ROWS, trl_seconds) | {
        "trl packing": trl_seconds - 0.5,
        OURS: 1.0,
        PLAIN: 0.1,
    }
    evaluated = {
        row: {
            "losses": losses + (row != OURS) * (shift + 0.01 * rng.normal(size=40)),
            "example_ids": example_ids,
        }
        for row in ROWS
    }
    peaks = [{"float32": 10e9, "bfloat16": 1e9}] * 2
    return training_vs_trl.Outcome(
        {row: ran(seconds[row], 6e9) for row in ROWS}, peaks, evaluated, 2, "float32"
    )


def test_the_table_is_made_of_what_was_measured():
    found = outcome(trl_seconds=4.0, shift=0.0)
    assert found.best == "trl packing"
    assert found.ratios == [3.5, 3.5]  # the first step is not counted
    assert found.share() == pytest.approx(0.6)
    assert found.holds()
    assert "3.50 times (3.50 3.50)" in found.lines()[-1]
    assert "100.0      40.0   1.00" in found.lines()[2]


@pytest.mark.parametrize(("trl_seconds", "shift"), [(2.0, 0.0), (4.0, 0.1), (4.0, -0.1)])
def test_the_limit_can_be_missed(trl_seconds, shift):
    """Too slow; or fast at another loss, higher or lower."""
    assert not outcome(trl_seconds, shift).holds()
