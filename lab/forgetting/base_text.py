"""Text that the base wrote itself, and how far another model is from the base on it.

On text sampled from p the expected difference of the losses, E[log p − log q], is KL(p‖q). The
divergence is computed exactly at every position, over the whole vocabulary, so only which positions
are looked at is left to chance; the difference of losses has the same expectation and much more
noise. That both agree is a check of the whole.
"""

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

# log-probabilities over the vocabulary lie in memory, in double precision and twice
TOKENS_PER_PACK = 192

# what a text begins with; of many kinds, so that the divergence is not that of one topic
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

    example_ids: whose text the token is in.
    """

    losses: np.ndarray
    divergences: np.ndarray
    example_ids: np.ndarray


@torch.no_grad()
def sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    count: int,
    *,
    tokens: int,
    seed: int,
) -> list[Encoded]:
    """Continue the first `count` openings by up to `tokens` tokens of the model's own distribution.

    Temperature 1 and the whole vocabulary; a text ends early where the model ends it. The openings
    stand in one batch, padded on the left. Only what was drawn is labelled.
    """
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in OPENINGS[:count]]
    end, device = model.config.eos_token_id, next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.tensor([[end] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    generator = torch.Generator().manual_seed(seed)
    drawn: list[torch.Tensor] = []
    step, past = ids, None
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
        # drawn on the CPU: the same on every device
        probabilities = out.logits[:, -1].float().softmax(-1).cpu()
        step = torch.multinomial(probabilities, 1, generator=generator).to(device)
        drawn.append(step)
        mask = torch.cat([mask, torch.ones_like(step)], 1)
    rows = torch.cat(drawn, 1).tolist()
    return [_encoded(prompt, _up_to(row, end)) for prompt, row in zip(prompts, rows, strict=True)]


def _encoded(prompt: Sequence[int], drawn: Sequence[int]) -> Encoded:
    return Encoded((*prompt, *drawn), (*[IGNORE] * len(prompt), *drawn))


def _up_to(ids: list[int], end: int) -> list[int]:
    """The ids up to the first `end`, which is kept.

    What a model says after the end of its turn is no text.
    """
    return ids[: ids.index(end) + 1] if end in ids else ids


@torch.no_grad()
def distance(model: "PreTrainedModel | PeftModel", texts: Sequence[Encoded]) -> Distance:
    """Losses of the model, with any adapters that it has, and KL(base‖model) at each drawn token.

    The base is the same model with the adapters switched off; without adapters it is
    compared with itself.
    """
    model.eval()
    device = next(model.parameters()).device
    columns: list[list[np.ndarray]] = [[], [], []]
    offset = 0
    for group in fill(texts, TOKENS_PER_PACK):
        packed = pack(group, device)
        # normalised in double precision: in single, the KL of two models that hardly differ can
        # come out below 0
        logits = (_base_logits(model, packed), supervised_logits(model, packed))  # each [S, V]
        base, tuned = (each.double().log_softmax(-1) for each in logits)
        found = (
            -tuned.gather(1, packed.targets[:, None])[:, 0].float(),
            (base.exp() * (base - tuned)).sum(1).float(),
            (packed.owner + offset).to(torch.int32),
        )
        for column, part in zip(columns, found, strict=True):
            column.append(part.cpu().numpy())
        offset += len(group)
    return Distance(*(np.concatenate(column) for column in columns))


def _base_logits(model: "PreTrainedModel | PeftModel", packed: Pack) -> torch.Tensor:
    if not hasattr(model, "disable_adapter"):
        return supervised_logits(model, packed)
    with model.disable_adapter():
        return supervised_logits(model, packed)
