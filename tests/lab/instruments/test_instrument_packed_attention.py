"""Attention by rows: every family computes the same as with the mask, and it is what computes."""

import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from lab.instruments import packed_attention, packing
from lab.instruments.chat import IGNORE, Encoded


def example(length, prompt, seed, beginning=()):
    draw = random.Random(seed)
    ids = (*beginning, *(draw.randrange(3, 259) for _ in range(length - len(beginning))))
    return Encoded(ids, (*[IGNORE] * prompt, *ids[prompt:]))


DIFFERENT = [example(7, 3, 1), example(10, 8, 2), example(4, 1, 3), example(12, 11, 4)]
CHATS = [example(11, 5, 1, (1, 2, 3)), example(14, 11, 2, (1, 2, 3)), example(13, 4, 3, (1, 2, 3))]


def loss_and_gradient(model, packed):
    model.zero_grad()
    loss = functional.cross_entropy(
        packing.supervised_logits(model, packed), packed.targets, reduction="sum"
    )
    loss.backward()
    return loss.detach(), torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


@pytest.mark.parametrize("examples", [DIFFERENT, CHATS], ids=["different", "same beginning"])
def test_rows_and_mask_agree(family_model, examples, monkeypatch):
    called = []
    own = packed_attention.attention
    monkeypatch.setattr(
        packed_attention,
        "attention",
        lambda *a, **k: called.append(k["layout"] is not None) or own(*a, **k),
    )
    packed = packing.pack(examples)
    assert packed.layout is not None
    by_rows = loss_and_gradient(family_model, packed)
    assert called == [True] * 2, "one call in each of the two layers, with the rows"
    by_mask = loss_and_gradient(family_model, replace(packed, layout=None))
    assert called == [True] * 2 + [False] * 2
    assert torch.allclose(by_rows[0], by_mask[0], rtol=1e-5)
    assert (by_rows[1] - by_mask[1]).norm() < 1e-4 * by_mask[1].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [packed_attention.SHORT, packed_attention.SHORT + 1])
def test_short_rows_and_long_ones_are_computed_alike(length, dtype):
    """Just below and above the limit between the ways, with shared key heads and an own scale."""
    torch.manual_seed(0)
    packed = packing.pack(
        [example(length + 1, 5, 1), example(length, 3, 2), example(length - 9, 8, 3)]
    )
    total = packed.ids.shape[1]
    query, key, value = (
        torch.randn(1, heads, total, 16).to(dtype).requires_grad_() for heads in (6, 2, 2)
    )
    attended = packed_attention.attention(
        None, query, key, value, None, layout=packed.layout, scaling=0.3
    )[0]
    expected = functional.scaled_dot_product_attention(
        *(x.float() for x in (query, key, value)), attn_mask=packed.mask, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    assert attended.dtype == dtype
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    assert torch.allclose(attended.float(), expected, **near)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad((attended.float() * weight).sum(), (query, key, value))
    theirs = torch.autograd.grad((expected * weight).sum(), (query, key, value))
    for own, right in zip(ours, theirs, strict=True):
        assert (own.float() - right.float()).norm() < (
            1e-5 if dtype == torch.float32 else 1e-2
        ) * right.float().norm()


def test_a_token_at_the_wrong_position_is_seen(family_model):
    """Control: rows that mix two examples give another loss."""
    packed = packing.pack(DIFFERENT)
    assert packed.layout is not None
    wrong = replace(packed, layout=replace(packed.layout, tokens=packed.layout.tokens.roll(1)))
    one, two = loss_and_gradient(family_model, packed)[0], loss_and_gradient(family_model, wrong)[0]
    assert abs(one - two) > 1e-3


def test_positions_of_the_tokens_in_the_rows():
    """A shared token, then four of one example and three of another: two rows of five positions."""
    example_ids = torch.tensor([-1, 0, 0, 0, 0, 1, 1, 1])
    positions = torch.tensor([0, 1, 2, 3, 4, 1, 2, 3])
    rows = packed_attention.row_layout(example_ids, positions, examples=2, shared=1)
    assert rows is not None
    assert rows.tokens.view(2, 5).tolist() == [[0, 1, 2, 3, 4], [0, 5, 6, 7, 0]]
    assert rows.row_positions.tolist() == [0, 1, 2, 3, 4, 6, 7, 8]


def test_one_long_example_among_short_ones_keeps_the_mask():
    short = [example(4, 2, seed) for seed in range(20)]
    assert packing.pack([*short, example(60, 5, 99)]).layout is None
    assert packing.pack([*short, example(6, 5, 99)]).layout is not None


def test_the_model_keeps_the_attention_it_was_loaded_with(tiny):
    config = tiny.model.config
    before = config._attn_implementation
    with pytest.raises(KeyError), packed_attention.switched_on(config):
        assert config._attn_implementation == packed_attention.NAME
        raise KeyError
    assert config._attn_implementation == before == "sdpa"
    config._attn_implementation = "eager"
    try:
        with packed_attention.switched_on(config):
            assert config._attn_implementation == "eager"
    finally:
        config._attn_implementation = "sdpa"
