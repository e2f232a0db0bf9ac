"""Text that the base wrote itself, and how far another model is from the base on it.

On text sampled from p the expected difference of the losses, E[log p − log q], is KL(p‖q). The
divergence is computed exactly at every position, over the whole vocabulary, so only the choice of
positions is random; the difference of losses has the same expectation and much more noise. That
both agree is a check of the whole computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.instruments.chat import IGNORE, Encoded
from lab.instruments.packing import Pack, fill, pack, supervised_logits

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Two models' log-probabilities over the vocabulary are in memory at once, in double precision.
TOKENS_PER_PACK = 192

# The beginnings of the texts; of many kinds, so that the divergence is not that of one topic.
OPENINGS = (
    "The history of the city begins",
    "When I was a child, my mother",
    "The results of the experiment show",
    "To bake a good bread you need",
    "The president said on Tuesday that",
    "In the middle of the forest",
    "Water boils when",
    "The best way to learn a language",
    "The company reported that its profits",
    "Dear Sir or Madam,",
    "Once upon a time there was",
    "The human heart is",
    "Scientists have discovered that",
    "The train was late, so",
    "Plants need sunlight because",
    "The old man looked at the sea and",
    "During the war, many people",
    "A computer program is",
    "The law requires that every",
    "She opened the door and saw",
    "The river flows from",
    "Music is important because",
    "The first step is to",
    "In mathematics, a prime number is",
    "The museum is open",
    "My favorite book is about",
    "The price of oil",
    "Birds migrate in the autumn because",
    "The team won the game after",
    "If you want to save money,",
    "The teacher asked the students to",
    "The moon moves around",
)


@dataclass(frozen=True)
class Distance:
    """Per sampled token, all [N]: the model's loss and its divergence from the base, in nats.

    example_ids: the text that the token is in.
    """

    losses: np.ndarray
    divergences: np.ndarray
    example_ids: np.ndarray


@torch.no_grad()  # type: ignore[untyped-decorator]
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    *,
    tokens: int,
    seed: int,
) -> list[Encoded]:
    """Continue the first `count` openings by up to `tokens` tokens of the model's own distribution.

    Temperature 1 and the whole vocabulary; a text ends early where the model ends it. Only the
    sampled tokens are labelled.
    """
    # 1. The openings as one batch of B rows, padded on the left to T tokens.
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in OPENINGS[:count]]
    end = model.config.eos_token_id
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    padded = [[end] * n + prompt for n, prompt in zip(padding, prompts, strict=True)]
    visible = [[0] * n + [1] * (longest - n) for n in padding]
    step = torch.tensor(padded, device=device)  # [B, T], then [B, 1]
    mask = torch.tensor(visible, device=device)  # [B, T], then one column more per step

    # 2. One token per step for every row, those that ended included.
    generator = torch.Generator().manual_seed(seed)
    sampled: list[torch.Tensor] = []
    past = None
    for _ in range(tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -step.shape[1] :]
        out = model(
            input_ids=step,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
        )
        past = out.past_key_values
        # Sampled on the CPU: the same on every device.
        probabilities = out.logits[:, -1].float().softmax(-1).cpu()  # [B, V]
        step = torch.multinomial(probabilities, 1, generator=generator).to(device)  # [B, 1]
        sampled.append(step)
        mask = torch.cat([mask, torch.ones_like(step)], 1)

    # 3. Each row up to its first end token, which belongs to the text.
    texts = []
    for prompt, row in zip(prompts, torch.cat(sampled, 1).tolist(), strict=True):
        length = len(row)
        if end in row:
            length = row.index(end) + 1
        ids = (*prompt, *row[:length])
        labels = (*[IGNORE] * len(prompt), *row[:length])
        texts.append(Encoded(ids, labels))
    return texts


@torch.no_grad()  # type: ignore[untyped-decorator]
def distance(model: PreTrainedModel | PeftModel, texts: Sequence[Encoded]) -> Distance:
    """Return the model's losses and KL(base‖model) at each sampled token.

    The base is the same model with its adapters switched off; a model without adapters is compared
    with itself.
    """
    model.eval()
    device = next(model.parameters()).device
    losses = []
    divergences = []
    example_ids = []
    offset = 0
    for group in fill(texts, TOKENS_PER_PACK):
        packed = pack(group, device)
        # Normalised in double precision: in single precision the KL of two models that hardly
        # differ can be below 0.
        log_p = _base_logits(model, packed).double().log_softmax(-1)  # [S, V]
        log_q = supervised_logits(model, packed).double().log_softmax(-1)  # [S, V]
        of_targets = log_q.gather(1, packed.targets[:, None])[:, 0]  # [S]
        divergence = (log_p.exp() * (log_p - log_q)).sum(1)  # [S]
        losses.append(-of_targets.float().cpu().numpy())
        divergences.append(divergence.float().cpu().numpy())
        example_ids.append((packed.example_ids + offset).to(torch.int32).cpu().numpy())
        offset += len(group)
    return Distance(
        np.concatenate(losses), np.concatenate(divergences), np.concatenate(example_ids)
    )


def _base_logits(model: PreTrainedModel | PeftModel, packed: Pack) -> torch.Tensor:
    if not hasattr(model, "disable_adapter"):
        return supervised_logits(model, packed)
    with model.disable_adapter():
        return supervised_logits(model, packed)
