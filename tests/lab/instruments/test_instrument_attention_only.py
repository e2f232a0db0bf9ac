"""The attention-only transformer: causal, turned by distance alone, heads that can be zeroed."""

import math

import pytest
import torch
from torch.nn import functional

from lab.instruments.attention_only import (
    AttentionOnly,
    Shape,
    norm,
    rotate,
    rotations,
)

SHAPE = Shape(vocabulary=11, width=12, layers=2, heads=3, head_width=4)


@pytest.fixture
def model() -> AttentionOnly:
    return AttentionOnly(SHAPE, seed=0)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))


def test_shapes_and_patterns(model, ids):
    logits, patterns = model(ids)
    assert logits.shape == (2, 9, 11)
    assert [pattern.shape for pattern in patterns] == [(2, 3, 9, 9)] * 2
    for pattern in patterns:
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 3, 9))
        assert not pattern.triu(1).any()


def test_a_layer_is_scaled_dot_product_attention(ids):
    """The same numbers from torch's own attention, with one layer and all of its heads."""
    one = AttentionOnly(Shape(vocabulary=11, width=12, layers=1, heads=3, head_width=4), seed=0)
    x = norm(one.embedding[ids])
    layer = one.layers[0]
    turned = rotations(9, 4)

    def split(projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(-1, (3, 4)).transpose(1, 2)  # [B, T, 12] -> [B, 3, T, 4]

    z = functional.scaled_dot_product_attention(
        rotate(split(x @ layer.query), turned),
        rotate(split(x @ layer.key), turned),
        split(x @ layer.value),
        is_causal=True,
    )
    written = z.transpose(1, 2).flatten(2) @ layer.output
    expected = norm(one.embedding[ids] + written) @ one.unembedding
    torch.testing.assert_close(one(ids)[0], expected)


def test_a_token_changes_what_comes_after_it_and_nothing_before(model, ids):
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    before, after = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=0)
    assert (before[:, 5:] != after[:, 5:]).any(-1).all()


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(2)).double()
    cosines, sines = (table.double() for table in rotations(40, 8))

    def score(query: int, key: int) -> float:
        turned_q = rotate(q, (cosines[query], sines[query]))
        turned_k = rotate(k, (cosines[key], sines[key]))
        return float(turned_q @ turned_k)

    assert math.isclose(score(7, 3), score(37, 33), rel_tol=1e-4)
    assert math.isclose(score(5, 5), float(q @ k), rel_tol=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 0.01


def test_zeroed_heads_write_nothing(model, ids):
    logits = model(ids)[0]
    every = [(layer, head) for layer in range(2) for head in range(3)]
    embedded_only = norm(model.embedding[ids]) @ model.unembedding
    torch.testing.assert_close(model(ids, every)[0], embedded_only)
    torch.testing.assert_close(model(ids, [])[0], logits, rtol=0, atol=0)
    for head in every:
        assert (model(ids, [head])[0] - logits).abs().max() > 1e-5, head


def test_zeroing_a_head_is_taking_its_output_rows_away(model, ids):
    zeroed = model(ids, [(1, 2)])[0]
    with torch.no_grad():
        model.layers[1].output[8:] = 0  # the rows of head 2, of width 4
    torch.testing.assert_close(model(ids)[0], zeroed)


def test_an_untrained_model_is_at_chance(model, ids):
    logits = model(ids)[0].detach()
    loss = functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
    assert abs(float(loss) - math.log(11)) < 0.1


def test_the_seed_decides_the_weights_and_fewer_layers_share_them(model):
    same, other = AttentionOnly(SHAPE, seed=0), AttentionOnly(SHAPE, seed=1)
    assert (same.embedding == model.embedding).all()
    assert (other.embedding != model.embedding).any()
    shallow = AttentionOnly(Shape(vocabulary=11, width=12, layers=1, heads=3, head_width=4), seed=0)
    assert (shallow.layers[0].query == model.layers[0].query).all()


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="heads of width 5; expected an even width"):
        AttentionOnly(Shape(vocabulary=4, width=8, layers=1, heads=1, head_width=5), seed=0)
