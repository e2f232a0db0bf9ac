"""Loss, hits and entropy from a language model's last hidden states, without keeping logits.

The logits of 66 tokens over a vocabulary of 49,152 are 13 MB. The usual way makes seven such
matrices, forward and backward, and each is a pass through memory: log-softmax and its gradient for
the loss, once more for the entropy. All of it follows from one softmax p of the logits l, a
few rows at a time:

    loss_t = log Z − l_t     entropy = log Z − Σ p·l     ∂loss_t/∂h = (p − onehot(t))·W

with the largest logit taken out of l and Z first. The gradient is computed on the spot, so nothing
as wide as the vocabulary outlives its rows (the idea of fused cross-entropies, such as Hsu et al.
2024, arXiv:2410.10989).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

# tokens at a time, at most: 25 MB of logits at a vocabulary of 49,152. Each time the head's matrix
# is read from memory anew, 113 MB of it, so that many small groups would cost more than they save
ROWS = 128


@dataclass(frozen=True)
class TokenScores:
    """How a model predicted S tokens, all [S]; gradients flow through `losses` alone.

    losses, entropies: in nats (float32); hits: where its first guess is right (bool).
    """

    losses: torch.Tensor
    entropies: torch.Tensor
    hits: torch.Tensor


def measure(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> TokenScores:
    """Return the scores of hidden states [S, d] before the head, for the tokens [S] to predict.

    Raises:
        ValueError: the head has a bias or is trained; neither is in the gradient written here.
    """
    if head.bias is not None or (head.weight.requires_grad and torch.is_grad_enabled()):
        msg = (
            "the head has a bias or is trained; expected a frozen matrix: its gradient would be "
            "left out without an error"
        )
        raise ValueError(msg)
    return TokenScores(*_Head.apply(hidden, head.weight, targets))


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with_gradient = ctx.needs_input_grad[0]
        groups = math.ceil(len(targets) / ROWS)
        parts = zip(hidden.tensor_split(groups), targets.tensor_split(groups), strict=True)
        groups_of_rows = [_rows(h, weight, t, with_gradient=with_gradient) for h, t in parts]
        columns = zip(*groups_of_rows, strict=True)
        losses, entropies, hits, gradient = (torch.cat(column) for column in columns)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropies, hits)
        return losses, entropies, hits

    @staticmethod
    def backward(
        ctx: Any, d_losses: torch.Tensor, *others: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors  # [S, d], of each token's own loss
        return gradient * d_losses[:, None].to(gradient.dtype), None, None


def _rows(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, with_gradient: bool
) -> tuple[torch.Tensor, ...]:
    """Return losses, entropies, hits [R] and the gradient ([R, d], else [R, 0]) of R rows."""
    logits = (hidden @ weight.t()).float()  # [R, V]
    top, best = logits.max(-1, keepdim=True)
    logits -= top  # the largest is 0 now, and Z = Σ exp l between 1 and V
    p = logits.softmax(-1)
    log_z = -p.gather(1, best).log().squeeze(1)  # p of the largest is 1/Z
    target = targets[:, None]
    losses = log_z - logits.gather(1, target).squeeze(1)
    entropies = log_z - torch.einsum("rv,rv->r", p, logits)
    hits = best.squeeze(1) == targets
    if not with_gradient:
        return losses, entropies, hits, hidden[:, :0]
    p.scatter_add_(1, target, -torch.ones_like(target, dtype=p.dtype))
    return losses, entropies, hits, p.to(weight.dtype) @ weight
