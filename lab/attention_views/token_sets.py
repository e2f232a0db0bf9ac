"""The token sequences of the attention views: sets that are measured, texts that are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lab.attention_views.measured import (
    NATURAL,
    NATURAL_UNTRAINED,
    ONE_TOKEN,
    RANDOM_TOKENS,
    REPEATED,
    REPEATED_UNTRAINED,
    ViewPlan,
)
from lab.contract import Context, ContractError
from lab.instruments import sequences
from lab.present.attention_page import FULL_TOKENS

if TYPE_CHECKING:
    from lab.instruments.models import Loaded


@dataclass(frozen=True)
class TextToShow:
    """A text of the page: its tokens [T]; period: of a repeated random sequence."""

    key: str
    label: str
    note: str
    ids: torch.Tensor
    period: int | None = None


def token_sets(ctx: Context, plan: ViewPlan, loaded: Loaded) -> dict[str, torch.Tensor]:
    """Return the sequences of each set, and of the causal test ("ablation"), on the device."""
    # 1. Each kind with seeds of its own, so that no two share a draw.
    vocabulary = loaded.model.config.vocab_size
    first_token = loaded.model.config.bos_token_id
    seed = 10 * ctx.seed
    natural = sequences.natural(loaded.tokenizer, plan.count, plan.length)
    random_tokens = sequences.random_tokens(vocabulary, plan.count, plan.length, seed=seed)
    one_token = sequences.one_token(vocabulary, plan.count, plan.length, seed=seed + 1)
    repeated = sequences.repeated(
        vocabulary, plan.repeats, plan.period, first_token=first_token, seed=seed + 2
    )
    held_out = sequences.repeated(
        vocabulary,
        ctx.config["ablation"]["count"],
        plan.period,
        first_token=first_token,
        seed=seed + 3,
    )

    # 2. The controls with random weights read the same sequences.
    sets = {
        NATURAL: natural,
        RANDOM_TOKENS: random_tokens,
        ONE_TOKEN: one_token,
        REPEATED: repeated,
        NATURAL_UNTRAINED: natural,
        REPEATED_UNTRAINED: repeated,
        "ablation": held_out,
    }
    return {kind: ids.to(loaded.model.device) for kind, ids in sets.items()}


def texts_to_show(ctx: Context, plan: ViewPlan, loaded: Loaded) -> list[TextToShow]:
    """Return the texts of the page: one of each kind, and the user's own.

    Raises:
        ContractError: a text of the config is empty, or too long for whole maps.
    """
    # 1. One sequence of each kind.
    vocabulary = loaded.model.config.vocab_size
    seed = 10 * ctx.seed
    repeated = sequences.repeated(
        vocabulary,
        1,
        plan.shown_period,
        first_token=loaded.model.config.bos_token_id,
        seed=seed + 4,
    )
    shown = [
        TextToShow(
            "natural",
            "running text",
            f"The first {plan.length} tokens of Python's documentation of its topics.",
            sequences.natural(loaded.tokenizer, plan.count, plan.length)[0],
        ),
        TextToShow(
            "repeated",
            "a random sequence twice",
            f"One first token, {plan.shown_period} random tokens, and the same again: what can be "
            "foretold of the second copy, can be foretold by copying alone.",
            repeated[0],
            period=plan.shown_period,
        ),
        TextToShow(
            "random_tokens",
            "random tokens",
            "No order to find: a pattern here is not about content.",
            sequences.random_tokens(vocabulary, 1, plan.length, seed=seed + 5)[0],
        ),
        TextToShow(
            "one_token",
            "one token repeated",
            "Control of the sink: no token differs from another but by its position.",
            sequences.one_token(vocabulary, 1, plan.length, seed=seed + 6)[0],
        ),
    ]

    # 2. The user's own.
    for number, own in enumerate(plan.texts):
        ids = loaded.tokenizer.encode(own.text, add_special_tokens=False)
        if not 2 <= len(ids) <= FULL_TOKENS:
            msg = (
                f"text {own.label!r} has {len(ids)} tokens; expected 2 to {FULL_TOKENS}; for a "
                "longer one: python -m lab attention --file FILE"
            )
            raise ContractError(msg)
        shown.append(TextToShow(f"own_{number}", own.label, "", torch.tensor(ids)))
    return shown
