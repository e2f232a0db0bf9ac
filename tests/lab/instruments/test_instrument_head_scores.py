"""Scores of heads on patterns whose answer is known."""

import math

import torch

from lab.instruments import head_scores

T = 20


def to_first():
    """Return a head that gives everything to the first token."""
    pattern = torch.zeros(T, T)
    pattern[:, 0] = 1
    return pattern


def even():
    """Return a head that spreads evenly over what it may see."""
    return torch.tril(torch.ones(T, T)) / torch.arange(1, T + 1)[:, None]


def entropy(pattern):
    return torch.special.entr(pattern).sum(-1)[None]


def distance(pattern):
    places = torch.arange(T)
    return (pattern * (places[:, None] - places)).sum(-1)[None]


def test_sink_rate_counts_heads_above_the_threshold():
    shares = torch.stack([to_first()[:, 0], even()[:, 0], torch.full((T,), 0.2)])
    assert even()[:, 0].mean() < 0.3
    assert abs(float(head_scores.sink_rate(shares)) - 100 / 3) < 1e-4
    assert head_scores.sink_rate(shares, threshold=0.1) == 100
    assert head_scores.sink_rate(torch.zeros(3, T)) == 0


def test_entropy_is_1_where_it_is_spread_and_0_where_it_is_not():
    keys = torch.arange(1, T + 1)
    torch.testing.assert_close(
        head_scores.normalised_entropy(entropy(even()), keys), torch.ones(1), atol=1e-6, rtol=0
    )
    assert head_scores.normalised_entropy(entropy(to_first()), keys) == 0


def test_distance_without_the_sink():
    # 1. Half to the first token and half to the one before: without the sink the distance is 1.
    half = 0.5 * to_first()
    half[range(1, T), range(T - 1)] += 0.5
    alone = head_scores.distance_without_sink(distance(half), half[None, :, 0])
    torch.testing.assert_close(alone[0, 2:], torch.ones(T - 2), atol=1e-5, rtol=0)
    assert (distance(half)[0, 4:] > 1).all()

    # 2. Nothing is left of a head that sees the first token alone.
    nothing = head_scores.distance_without_sink(distance(to_first()), to_first()[None, :, 0])
    assert (nothing == 0).all()

    # 3. Where the sink has nothing, nothing changes.
    before = torch.eye(T).roll(-1, 1).tril()
    before[0] = 0
    same = head_scores.distance_without_sink(distance(before), torch.zeros(1, T))
    torch.testing.assert_close(same, distance(before))


def test_mean_from_leaves_the_first_queries_out():
    assert head_scores.mean_from(torch.tensor([[9.0, 1.0, 3.0]]), 1) == torch.tensor([2.0])


def test_divergence_is_0_for_equal_and_ln_2_for_disjoint_rows():
    a, b = torch.eye(4)[0], torch.eye(4)[1]
    assert head_scores.js_divergence(a, a) == 0
    torch.testing.assert_close(head_scores.js_divergence(a, b), torch.tensor(math.log(2)))
    middle = head_scores.js_divergence(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    p, q = (0.5, 0.5), (0.25, 0.75)
    expected = 0.0
    for x, y in zip(p, q, strict=True):
        m = (x + y) / 2
        expected += 0.5 * (x * math.log(x / m) + y * math.log(y / m))
    assert abs(float(middle) - expected) < 1e-6
