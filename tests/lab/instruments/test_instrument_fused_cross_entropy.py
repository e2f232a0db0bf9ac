"""Fused cross-entropy: numbers and gradient of the way through all logits, or a clear error."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lab.instruments import fused_cross_entropy


def stage(tokens: int, vocabulary: int = 301, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    matrix = nn.Linear(16, vocabulary, bias=False).to(dtype).requires_grad_(requires_grad=False)
    hidden = (3 * torch.randn(tokens, 16)).to(dtype).requires_grad_(requires_grad=True)
    return hidden, matrix, torch.randint(vocabulary, (tokens,))


def plainly(hidden, matrix, targets):
    logits = matrix(hidden).float()
    log_p = logits.log_softmax(-1)
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return losses, -(log_p.exp() * log_p).sum(-1), logits.argmax(-1) == targets


@pytest.mark.parametrize(
    "tokens",
    [1, fused_cross_entropy.ROWS - 1, fused_cross_entropy.ROWS, 2 * fused_cross_entropy.ROWS + 5],
)
def test_numbers_and_gradient_are_those_of_the_plain_way(tokens):
    hidden, matrix, targets = stage(tokens)
    targets[0] = matrix(hidden[0]).argmax()  # one hit at least
    # every token's loss counts differently: the gradient must follow each
    weights = torch.randn(tokens)
    scores = fused_cross_entropy.measure(hidden, matrix, targets)
    expected = plainly(hidden, matrix, targets)
    for one, other in zip((scores.losses, scores.entropies, scores.hits), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    (actual,) = torch.autograd.grad((scores.losses * weights).sum(), hidden)
    (right,) = torch.autograd.grad((expected[0] * weights).sum(), hidden)
    assert torch.allclose(actual, right, rtol=1e-4, atol=1e-5)
    assert scores.hits.any()


def test_the_comparison_sees_a_wrong_target():
    """Control: another target is another loss and another gradient."""
    hidden, matrix, targets = stage(5)
    one = fused_cross_entropy.measure(hidden, matrix, targets).losses
    two = plainly(hidden, matrix, (targets + 1) % 301)[0]
    assert not torch.allclose(one, two, atol=1e-2)
    gradients = [torch.autograd.grad(losses.sum(), hidden)[0] for losses in (one, two)]
    assert not torch.allclose(*gradients, atol=1e-2)


def test_bfloat16_loses_no_more_than_the_plain_way():
    hidden, matrix, targets = stage(40, dtype=torch.bfloat16)
    scores = fused_cross_entropy.measure(hidden, matrix, targets)
    expected = plainly(hidden, matrix, targets)
    assert scores.losses.dtype == torch.float32
    assert torch.allclose(scores.losses, expected[0], atol=1e-4)
    actual, right = (
        torch.autograd.grad(losses.sum(), hidden)[0].float()
        for losses in (scores.losses, expected[0])
    )
    assert actual.dtype == torch.float32
    assert (actual - right).norm() < 0.02 * right.norm()


def test_what_knows_nothing_and_what_is_sure():
    flat = nn.Linear(1, 50, bias=False).requires_grad_(requires_grad=False)
    flat.weight.zero_()
    nothing = fused_cross_entropy.measure(torch.ones(1, 1), flat, torch.tensor([7]))
    assert nothing.entropies.item() == pytest.approx(math.log(50))
    assert nothing.losses.item() == pytest.approx(math.log(50))
    sure = nn.Linear(1, 2, bias=False).requires_grad_(requires_grad=False)
    sure.weight.copy_(torch.tensor([[1000.0], [0.0]]))  # exp(1000) is no float
    right, wrong = (
        fused_cross_entropy.measure(torch.ones(1, 1), sure, torch.tensor([target]))
        for target in (0, 1)
    )
    assert (right.losses.item(), right.entropies.item(), right.hits.item()) == (0.0, 0.0, True)
    assert (wrong.losses.item(), wrong.hits.item()) == (1000.0, False)


@pytest.mark.parametrize("change", ["trained", "bias"])
def test_a_head_whose_gradient_would_be_left_out_is_refused(change):
    hidden, matrix, targets = stage(3)
    if change == "trained":
        matrix.requires_grad_(requires_grad=True)
    else:
        matrix.bias = nn.Parameter(torch.zeros(301))
    with pytest.raises(
        ValueError, match="the head has a bias or is trained; expected a frozen matrix"
    ):
        fused_cross_entropy.measure(hidden, matrix, targets)
