"""Running statistics: those of all tokens, in whatever portions they come."""

import pytest
import torch

from lab.instruments.activation_statistics import ROWS, ActivationStatistics, Extreme


def drawn(sequences=6, positions=10, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sequences, positions, width, generator=generator)


def counted(x, portions, keep=None):
    """Return the statistics of x [B, T, D], whose rows come in portions of these sizes."""
    statistics = ActivationStatistics()
    keep = torch.ones(x.shape[:2], dtype=torch.bool) if keep is None else keep
    first = torch.zeros_like(keep)
    first[:, 0] = True
    positions = torch.arange(x.shape[1])
    for part in torch.arange(len(x)).split(portions):
        statistics.update(x[part], keep=keep[part], first=first[part], positions=positions)
    return statistics


@pytest.mark.parametrize("portions", [[6], [1, 1, 1, 1, 1, 1], [1, 5], [4, 2]])
def test_portions_do_not_matter(portions):
    x = drawn()
    statistics = counted(x, portions)
    wide = x.double()
    norms = wide.norm(dim=-1)
    torch.testing.assert_close(statistics.mean, wide.mean((0, 1)), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        statistics.variance, wide.var((0, 1), correction=0), rtol=1e-12, atol=1e-14
    )
    assert statistics.mean_norm == pytest.approx(float(norms.mean()), rel=1e-12)
    assert statistics.mean_norm_without_first == pytest.approx(
        float(norms[:, 1:].mean()), rel=1e-12
    )
    medians = wide.abs().sort(dim=-1).values[..., 3]  # the fourth of eight: the lower one of two
    assert statistics.mean_median == pytest.approx(float(medians.mean()), rel=1e-6)
    assert (statistics.tokens, statistics.sequences, statistics.first_tokens) == (60, 6, 6)


def test_portions_larger_than_what_is_widened_at_once():
    x = drawn(sequences=3, positions=ROWS, width=2)
    statistics = counted(x, [3])
    torch.testing.assert_close(statistics.variance, x.double().var((0, 1), correction=0))
    assert statistics.tokens == 3 * ROWS


def test_a_mean_that_is_large_does_not_hide_a_small_spread():
    """The trap of E[x²] − E[x]²: in float32, and in float64 far enough out, it is all rounding."""
    x = drawn().double() * 1e-3 + 1e6
    statistics = counted(x, [2, 2, 2])
    expected = x.var((0, 1), correction=0)
    torch.testing.assert_close(statistics.variance, expected, rtol=1e-3, atol=0)
    naive = x.square().mean((0, 1)) - x.mean((0, 1)).square()
    assert ((naive - expected).abs() / expected).max() > 1


def test_the_largest_are_found_with_their_places():
    x = drawn() / 100
    x[4, 7, 2], x[0, 0, 5], x[2, 9, 1], x[3, 3, 3] = -50.0, 30.0, 20.0, 10.0
    for portions in ([6], [1, 1, 1, 1, 1, 1], [4, 2]):
        assert counted(x, portions).largest == (
            Extreme(50.0, 4, 7, 2),
            Extreme(30.0, 0, 0, 5),
            Extreme(20.0, 2, 9, 1),
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_the_largest(value):
    x = drawn()
    x[3, 2, 1] = value
    for portions in ([6], [1, 1, 1, 1, 1, 1]):
        statistics = counted(x, portions)
        largest = statistics.largest
        assert (largest[0].sequence, largest[0].position, largest[0].dimension) == (3, 2, 1)
        assert largest[0].size == pytest.approx(value, nan_ok=True)
        assert largest[1].size == counted(drawn(), portions).largest[0].size
        assert not torch.isfinite(statistics.mean[1])
        assert torch.isfinite(statistics.mean[0])


def test_padding_is_nobody_s():
    x = drawn()
    keep = torch.ones(6, 10, dtype=torch.bool)
    keep[2, :4] = False
    keep[5] = False
    spoiled = x.clone()
    spoiled[~keep] = 1e6
    statistics = counted(spoiled, [2, 2, 1, 1], keep)
    tokens = x[keep].double()
    torch.testing.assert_close(statistics.mean, tokens.mean(0))
    torch.testing.assert_close(statistics.variance, tokens.var(0, correction=0))
    assert statistics.tokens == 46
    assert statistics.largest[0].size < 10


def test_nothing_counted_is_0():
    statistics = ActivationStatistics()
    assert statistics.tokens == statistics.mean_norm == statistics.mean_median == 0
    assert statistics.mean_norm_without_first == 0
    assert statistics.largest == ()


def test_bytes_do_not_grow():
    sizes = {counted(drawn(sequences=count), [count]).nbytes for count in (1, 6, 60)}
    assert sizes == {2 * 8 * 8 + 8 * (4 * 3 + 6)}
