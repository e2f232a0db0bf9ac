"""Several examples in one row of tokens: no padding, unseen by one another, nothing computed twice.

Examples of mixed length padded to the longest cost up to three times their tokens. Packed, they
follow one another in one row; the attention mask separates them and positions restart with each, so
that every example is computed as if it were alone (tests compare losses and gradients). Two parts
need no computation of their own: the beginning that all examples share (a chat template's first
tokens) is there once and is visible to all, and an example's last token is left out, as nothing
follows that it could predict. Together that saves a sixth of 24 tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lab.instruments import fused_cross_entropy, packed_attention
from lab.instruments.chat import IGNORE, Encoded
from lab.instruments.fused_cross_entropy import TokenScores
from lab.instruments.packed_attention import RowLayout

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Pack:
    """One row of T tokens with S supervised predictions, ready for a model.

    ids: [1, T]; positions: [1, T], each token's position in its example; mask: [1, 1, T, T],
    True where q may attend to k; before: [S], where in the row a supervised token is predicted;
    targets: [S], those tokens; example_ids: [S], the example of each (index in the pack); layout:
    the tokens as one row per example, where attention is cheaper so.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    before: torch.Tensor
    targets: torch.Tensor
    example_ids: torch.Tensor
    layout: RowLayout | None = None


_SHARED = -1  # example id of the beginning that all examples have in common


def pack(examples: Sequence[Encoded], device: torch.device | str = "cpu") -> Pack:
    """Return the examples as one row: the beginning that they share, then the rest of each."""
    # 1. Token by token: id, position, example, and the label of the next token, to be predicted.
    shared = _shared_length(examples)
    id_list = list(examples[0].ids[:shared])
    label_list = [IGNORE] * shared
    position_list = list(range(shared))
    example_list = [_SHARED] * shared
    for number, example in enumerate(examples):
        length = len(example.ids) - 1  # nothing follows the last token
        id_list += example.ids[shared:length]
        label_list += example.labels[shared + 1 :]
        position_list += range(shared, length)
        example_list += [number] * (length - shared)
    ids = torch.tensor(id_list)  # [T]
    labels = torch.tensor(label_list)  # [T]
    positions = torch.tensor(position_list)  # [T]
    example_ids = torch.tensor(example_list)  # [T]

    # 2. A token attends to what is before it, in its own example or in the shared beginning.
    order = torch.arange(len(example_ids))
    same = example_ids[:, None] == example_ids[None, :]  # [T, T]
    visible = same | (example_ids == _SHARED)[None, :]
    mask = visible & (order[:, None] >= order[None, :])  # [T, T]

    # 3. Where the loss counts.
    before = (labels != IGNORE).nonzero().squeeze(1)  # [S]
    layout = packed_attention.row_layout(example_ids, positions, len(examples), shared)
    if layout is not None:
        layout = layout.to(device)
    return Pack(
        ids=ids[None].to(device),
        positions=positions[None].to(device),
        mask=mask[None, None].to(device),
        before=before.to(device),
        targets=labels[before].to(device),
        example_ids=example_ids[before].to(device),
        layout=layout,
    )


def _shared_length(examples: Sequence[Encoded]) -> int:
    """Return how many tokens all examples begin with, the shortest prompt's last not counted.

    That token predicts the first supervised one, which is each example's own.
    """
    longest = min(len(e.prompt) for e in examples) - 1
    for position in range(longest):
        if len({e.ids[position] for e in examples}) > 1:
            return position
    return max(longest, 0)


def fill(examples: Iterable[Encoded], budget: int) -> Iterator[list[Encoded]]:
    """Yield groups of consecutive examples of at most `budget` tokens; a longer one is alone."""
    group: list[Encoded] = []
    size = 0
    for example in examples:
        if group and size + len(example.ids) > budget:
            yield group
            group = []
            size = 0
        group.append(example)
        size += len(example.ids)
    if group:
        yield group


def supervised_logits(model: "PreTrainedModel | PeftModel", pack: Pack) -> torch.Tensor:
    """Return the logits [S, V] in float32 of the tokens that the loss counts, and of no others.

    The head is the widest layer (V = 49,152 against a width of 576 in SmolLM2): computing it for
    the prompt too would cost as much as six of the thirty layers, and its logits would be the
    peak of memory.
    """
    return _language_model(model).get_output_embeddings()(supervised_hidden(model, pack)).float()


def supervised_tokens(model: "PreTrainedModel | PeftModel", pack: Pack) -> TokenScores:
    """Return loss, entropy and hit [S] of each token that the loss counts, keeping no logits."""
    return fused_cross_entropy.measure(
        supervised_hidden(model, pack), _language_model(model).get_output_embeddings(), pack.targets
    )


def supervised_hidden(model: "PreTrainedModel | PeftModel", pack: Pack) -> torch.Tensor:
    """Return the head's inputs [S, d] where it predicts a token that the loss counts."""
    language_model = _language_model(model)
    with packed_attention.switched_on(language_model.config):
        hidden = language_model.base_model(
            input_ids=pack.ids,
            position_ids=pack.positions,
            attention_mask=pack.mask,
            use_cache=False,
            layout=pack.layout,
        ).last_hidden_state  # [1, T, d]
    return hidden[0, pack.before]


def _language_model(model: "PreTrainedModel | PeftModel") -> "PreTrainedModel":
    if hasattr(model, "get_base_model"):
        return model.get_base_model()
    return model
