"""Several examples in one row of tokens: no padding, unseen by one another, nothing computed twice.

Examples of mixed length padded to the longest cost up to three times their tokens. Packed, they
stand end to end in one row; the attention mask keeps them apart and positions restart with each, so
that every example is computed as if it were alone (tests compare losses and gradients). Two parts
need no computation of their own: the beginning that all examples share (a chat template's first
tokens) stands there once and is seen by all, and an example's last token is left out, as nothing
follows that it could predict. Of 24 tokens that is a sixth.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch

from lab.instruments import fused_cross_entropy as head
from lab.instruments import packed_attention
from lab.instruments.chat import IGNORE, Encoded
from lab.instruments.fused_cross_entropy import Tokens
from lab.instruments.packed_attention import Apart

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Pack:
    """One row of T tokens with S supervised predictions, ready for a model.

    ids: [1, T]; positions: [1, T], each token's place in its example; mask: [1, 1, T, T], True
    where q may see k; before: [S], where in the row a supervised token is predicted; targets: [S],
    those tokens; owner: [S], whose they are (index among the pack's examples); apart: the tokens as
    one row per example, where attention is cheaper so.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    before: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    apart: Apart | None = None


_SHARED = -1  # owner of the beginning that all examples have in common


def pack(examples: Sequence[Encoded], device: torch.device | str = "cpu") -> Pack:
    """Put examples end to end."""
    shared = _shared_length(examples)
    lengths = torch.tensor([shared, *(len(e.ids) - 1 - shared for e in examples)])
    owner = torch.repeat_interleave(torch.arange(_SHARED, len(examples)), lengths)  # [T]
    ids = torch.tensor(
        [*examples[0].ids[:shared], *(token for e in examples for token in e.ids[shared:-1])]
    )  # [T]
    positions = torch.cat(
        [torch.arange(shared), *(torch.arange(shared, len(e.ids) - 1) for e in examples)]
    )  # [T]
    # what each token must predict: the label of the next one
    labels = torch.tensor(
        [*[IGNORE] * shared, *(label for e in examples for label in e.labels[shared + 1 :])]
    )  # [T]
    before = (labels != IGNORE).nonzero().squeeze(1)  # [S]
    order = torch.arange(len(owner))
    visible = (owner[:, None] == owner[None, :]) | (owner == _SHARED)[None, :]
    mask = visible & (order[:, None] >= order[None, :])  # [T, T]
    parts = (ids[None], positions[None], mask[None, None], before, labels[before], owner[before])
    rows = packed_attention.apart(owner, positions, len(examples), shared)
    return Pack(*(part.to(device) for part in parts), rows and rows.to(device))


def _shared_length(examples: Sequence[Encoded]) -> int:
    """Number of tokens with which all examples begin, the shortest prompt's last token not counted.

    That token predicts the first supervised one, which is each example's own.
    """
    longest = min(len(e.prompt) for e in examples) - 1
    same = (
        len(set(column)) == 1 for column in zip(*(e.ids[:longest] for e in examples), strict=True)
    )
    return sum(takewhile(bool, same)) if longest > 0 else 0


def fill(examples: Iterable[Encoded], budget: int) -> Iterator[list[Encoded]]:
    """Groups of consecutive examples of at most `budget` tokens; a longer one is its own group."""
    group: list[Encoded] = []
    size = 0
    for example in examples:
        if group and size + len(example.ids) > budget:
            yield group
            group, size = [], 0
        group.append(example)
        size += len(example.ids)
    if group:
        yield group


def supervised_logits(model: "PreTrainedModel | PeftModel", pack: Pack) -> torch.Tensor:
    """Logits [S, V] in float32 of the tokens that the loss counts, and of no others.

    The head is the widest layer (V = 49,152 against a width of 576 in SmolLM2): computing it for
    the prompt too would cost as much as six of the thirty layers, and its logits would be the
    peak of memory.
    """
    return _language_model(model).get_output_embeddings()(supervised_hidden(model, pack)).float()


def supervised_tokens(model: "PreTrainedModel | PeftModel", pack: Pack) -> Tokens:
    """Loss, entropy and hit [S] of each token that the loss counts, without keeping logits."""
    return head.measure(
        supervised_hidden(model, pack), _language_model(model).get_output_embeddings(), pack.targets
    )


def supervised_hidden(model: "PreTrainedModel | PeftModel", pack: Pack) -> torch.Tensor:
    """What the head gets [S, d] where it predicts a token that the loss counts."""
    language_model = _language_model(model)
    with packed_attention.switched_on(language_model.config):
        hidden = language_model.base_model(
            input_ids=pack.ids,
            position_ids=pack.positions,
            attention_mask=pack.mask,
            use_cache=False,
            apart=pack.apart,
        ).last_hidden_state  # [1, T, d]
    return hidden[0, pack.before]


def _language_model(model: "PreTrainedModel | PeftModel") -> "PreTrainedModel":
    return model.get_base_model() if hasattr(model, "get_base_model") else model
