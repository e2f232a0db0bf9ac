"""A model on held-out examples: every supervised token's loss, greedy generations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.instruments.chat import Encoded
from lab.instruments.packing import fill, pack, supervised_tokens

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# attention over a pack costs T², so a pack much longer than its examples wastes it
TOKENS_PER_PACK = 384


@dataclass(frozen=True)
class Evaluation:
    """Per supervised token, in the order of the examples; all arrays [N].

    losses, entropies: float32, nats; hits: uint8, 1 where the most likely token is the right one;
    example_ids: int32, the example's index.
    """

    losses: np.ndarray
    entropies: np.ndarray
    hits: np.ndarray
    example_ids: np.ndarray

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths."""
        shapes = {a.shape for a in (self.losses, self.entropies, self.hits, self.example_ids)}
        if len(shapes) != 1:
            msg = f"arrays of an evaluation have the shapes {shapes}; expected one"
            raise ValueError(msg)


@torch.no_grad()
def evaluate(model: "PreTrainedModel | PeftModel", examples: Sequence[Encoded]) -> Evaluation:
    """Return loss, entropy and hit of every supervised token."""
    model.eval()
    device = next(model.parameters()).device
    columns: list[list[np.ndarray]] = [[], [], [], []]
    offset = 0
    for group in fill(examples, TOKENS_PER_PACK):
        packed = pack(group, device)
        scores = supervised_tokens(model, packed)
        parts = (
            scores.losses,
            scores.entropies,
            scores.hits.to(torch.uint8),
            (packed.example_ids + offset).to(torch.int32),
        )  # each [S]
        for column, part in zip(columns, parts, strict=True):
            column.append(part.cpu().numpy())
        offset += len(group)
    return Evaluation(*(np.concatenate(column) for column in columns))


@torch.no_grad()
def generate(
    model: "PreTrainedModel | PeftModel", prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> list[list[int]]:
    """Return the greedy continuations of some prompts, up to the end of the turn.

    The prompts go through the model together, padded on the left: 4-bit weights are unpacked anew
    for every token, so one prompt costs as much as three.
    """
    model.eval()
    end = model.config.eos_token_id
    longest = max(len(prompt) for prompt in prompts)
    padding = [longest - len(prompt) for prompt in prompts]
    device = next(model.parameters()).device
    rows = [[end] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    ids = torch.tensor(rows, device=device)  # [prompts, longest]
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding], device=device)
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=end,
    )
    return [_up_to(row, end) for row in out[:, longest:].tolist()]


def _up_to(ids: list[int], end: int) -> list[int]:
    """Return the ids up to and with the first `end`; what follows is padding."""
    if end in ids:
        return ids[: ids.index(end) + 1]
    return ids
