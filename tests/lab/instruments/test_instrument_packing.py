"""Packing: examples in one row are computed as if each were alone."""

import dataclasses
import random

import pytest
import torch
from torch.nn import functional

from lab.instruments import packing
from lab.instruments.chat import IGNORE, Encoded


def example(length, prompt, seed, beginning=()):
    draw = random.Random(seed)
    ids = (*beginning, *(draw.randrange(3, 259) for _ in range(length - len(beginning))))
    return Encoded(ids, (*[IGNORE] * prompt, *ids[prompt:]))


EXAMPLES = [example(7, 3, 1), example(19, 11, 2), example(4, 1, 3), example(12, 11, 4)]
CHATS = [example(9, 5, 1, (1, 2, 3)), example(14, 11, 2, (1, 2, 3)), example(8, 4, 3, (1, 2, 3))]


def loss_and_gradient(model, packs):
    model.zero_grad()
    total = sum(
        functional.cross_entropy(packing.supervised_logits(model, p), p.targets, reduction="sum")
        for p in packs
    )
    total.backward()
    return total.detach(), torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


@pytest.mark.parametrize("examples", [EXAMPLES, CHATS], ids=["different", "same beginning"])
def test_packed_equals_alone_in_loss_and_gradients(family_model, examples):
    together = loss_and_gradient(family_model, [packing.pack(examples)])
    alone = loss_and_gradient(family_model, [packing.pack([e]) for e in examples])
    assert torch.allclose(together[0], alone[0], rtol=1e-5)
    assert (together[1] - alone[1]).norm() < 1e-4 * alone[1].norm()


def test_alone_equals_transformers_own_loss(family_model):
    for e in EXAMPLES:
        packed = packing.pack([e])
        ours = functional.cross_entropy(
            packing.supervised_logits(family_model, packed), packed.targets
        )
        theirs = family_model(input_ids=torch.tensor([e.ids]), labels=torch.tensor([e.labels])).loss
        assert torch.allclose(ours, theirs, rtol=1e-5)


def test_without_the_mask_the_examples_see_each_other(family_model):
    """Control: the comparison above can fail."""
    good = packing.pack(EXAMPLES)
    causal = torch.ones_like(good.mask).tril()
    leaky = dataclasses.replace(good, mask=causal, layout=None)
    assert (
        abs(
            loss_and_gradient(family_model, [leaky])[0] - loss_and_gradient(family_model, [good])[0]
        )
        > 1e-3
    )


def test_no_target_crosses_from_one_example_to_the_next():
    all_supervised = [Encoded((5, 6, 7), (5, 6, 7)), Encoded((8, 9), (8, 9))]
    packed = packing.pack(all_supervised)
    assert packed.ids.tolist() == [[5, 6, 8]]  # 7 and 9 are predicted and predict nothing
    assert packed.targets.tolist() == [6, 7, 9]
    assert packed.before.tolist() == [0, 1, 2]
    assert packed.example_ids.tolist() == [0, 0, 1]
    assert packed.positions.tolist() == [[0, 1, 0]]
    assert packed.mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_a_common_beginning_is_there_once():
    one = Encoded((1, 2, 5, 6, 7), (IGNORE, IGNORE, IGNORE, 6, 7))
    two = Encoded((1, 2, 8, 9), (IGNORE, IGNORE, IGNORE, 9))
    packed = packing.pack([one, two])
    assert packed.ids.tolist() == [[1, 2, 5, 6, 8]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert packed.targets.tolist() == [6, 7, 9]
    assert packed.before.tolist() == [2, 3, 4]
    assert packed.example_ids.tolist() == [0, 0, 1]
    assert packed.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_the_token_before_the_answer_is_never_shared():
    """Its prediction is each example's own."""
    same_prompt = [
        Encoded((1, 2, 3, 5), (IGNORE, IGNORE, IGNORE, 5)),
        Encoded((1, 2, 3, 6), (IGNORE, IGNORE, IGNORE, 6)),
    ]
    packed = packing.pack(same_prompt)
    assert packed.ids.tolist() == [[1, 2, 3, 3]]
    assert packed.targets.tolist() == [5, 6]


@pytest.mark.parametrize("budget", [1, 12, 30, 1000])
def test_filling_keeps_order_and_budget(budget):
    groups = list(packing.fill(EXAMPLES, budget))
    assert [e for group in groups for e in group] == EXAMPLES
    assert all(len(group) == 1 or sum(len(e.ids) for e in group) <= budget for group in groups)
    assert len(groups) == {1: 4, 12: 4, 30: 2, 1000: 1}[budget]
