"""Multiple choice without generating: each choice's log-likelihood after the prompt, in one pass.

The prompt is computed once for its choices: the row contains the prompt and behind it every choice,
and the mask lets a choice see the prompt and itself alone. The last token of a choice is not in the
row, because nothing is predicted after it. Names of scores are those of lm-evaluation-harness: acc
takes the highest log-likelihood, acc_norm the highest per byte of the choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS_PER_PACK = 384  # attention over a pack costs its length squared
DELIMITER = " "  # between prompt and choice; belongs to the choice's tokens


@dataclass(frozen=True)
class Item:
    """A question: `choices` are possible ends of `prompt`, that with index `gold` is right.

    `kind` names the generator.
    """

    suite: str
    kind: str
    prompt: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Tokens:
    """An item as token ids; a choice's begin with the delimiter."""

    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of tokens in a pack."""
        return len(self.prompt) + sum(len(choice) - 1 for choice in self.choices)


class ChoiceError(ValueError):
    """An item cannot be scored."""


def encode(tokenizer: PreTrainedTokenizerBase, item: Item) -> Tokens:
    """Return the tokens of prompt and choices.

    Raises:
        ChoiceError: a token straddles the border of prompt and choice, so that the choice has no
            likelihood of its own.
    """

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    tokens = Tokens(ids(item.prompt), tuple(ids(DELIMITER + choice) for choice in item.choices))
    for text, choice in zip(item.choices, tokens.choices, strict=True):
        if ids(item.prompt + DELIMITER + text) != tokens.prompt + choice:
            msg = (
                f"{item.prompt!r} + {text!r} has other tokens than its two parts; end the "
                "prompt at a word's end"
            )
            raise ChoiceError(msg)
    return tokens


@torch.no_grad()
def log_likelihoods(model: PreTrainedModel | PeftModel, items: Sequence[Tokens]) -> np.ndarray:
    """Return Σ log p(token | the tokens before it) of every choice, in nats.

    float32 [items, choices].
    """
    model.eval()
    rows: list[torch.Tensor] = []
    for group in fill(items):
        rows += _score_pack(model, group)
    sums: np.ndarray = torch.stack(rows).cpu().numpy()
    return sums


def fill(items: Sequence[Tokens]) -> Iterator[list[Tokens]]:
    """Yield the items in order, as many together as TOKENS_PER_PACK allows."""
    group: list[Tokens] = []
    for item in items:
        if group and sum(other.size for other in group) + item.size > TOKENS_PER_PACK:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


@dataclass
class _Row:
    """A pack in the making: T tokens with position, item and branch; the predictions to read.

    branches: 0 for the prompt, 1, 2, … for the choices; predictions: per item and choice, where in
    the row each of its tokens is predicted.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    predictions: list[list[list[int]]] = field(default_factory=list)

    def append(self, ids: Sequence[int], *, position: int, item: int, branch: int) -> None:
        """Append tokens, the first of them at `position` of its sequence."""
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.items += [item] * len(ids)
        self.branches += [branch] * len(ids)

    def mask(self) -> torch.Tensor:
        """Return [T, T], True where the query (row) may attend to the key (column)."""
        items = torch.tensor(self.items)
        branches = torch.tensor(self.branches)
        order = torch.arange(len(self.ids))
        same_item = items[:, None] == items[None]
        same_branch = branches[:, None] == branches[None]
        of_prompt = (branches == 0)[None]
        not_later = order[:, None] >= order[None]
        return same_item & (same_branch | of_prompt) & not_later


def _row(group: Sequence[Tokens]) -> _Row:
    """Return the pack of some items."""
    row = _Row()
    for number, item in enumerate(group):
        length = len(item.prompt)
        row.append(item.prompt, position=0, item=number, branch=0)
        end_of_prompt = len(row.ids) - 1
        predictions = []
        for branch, choice in enumerate(item.choices, start=1):
            first = len(row.ids)
            row.append(choice[:-1], position=length, item=number, branch=branch)
            # The first token of a choice is predicted at the prompt's end.
            predictions.append([end_of_prompt, *range(first, len(row.ids))])
        row.predictions.append(predictions)
    return row


def _score_pack(model: PreTrainedModel | PeftModel, group: Sequence[Tokens]) -> list[torch.Tensor]:
    """Return the log-likelihoods [choices] of each item of one pack."""
    # 1. The hidden states of the row, without the output layer.
    row = _row(group)
    device = next(model.parameters()).device
    language_model = model
    if hasattr(model, "get_base_model"):
        language_model = model.get_base_model()
    hidden = language_model.base_model(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        attention_mask=row.mask()[None, None].to(device),  # [1, 1, T, T]
        use_cache=False,
    ).last_hidden_state[0]  # [T, d]

    # 2. The output layer only where a prediction is read; R positions, each once.
    positions: set[int] = set()
    for predictions in row.predictions:
        positions.update(*predictions)
    read = sorted(positions)
    log_p = language_model.get_output_embeddings()(hidden[read]).float().log_softmax(-1)  # [R, V]

    # 3. Each choice: the sum over its tokens.
    index = {position: i for i, position in enumerate(read)}
    scores = []
    for item, predictions in zip(group, row.predictions, strict=True):
        sums = []
        for choice, positions_of_choice in zip(item.choices, predictions, strict=True):
            rows = [index[position] for position in positions_of_choice]
            sums.append(log_p[rows, list(choice)].sum())
        scores.append(torch.stack(sums))
    return scores


@dataclass(frozen=True)
class Scores:
    """Per item [N]: margin in nats/byte, and whether the gold choice wins.

    acc: it wins by likelihood; acc_norm: per byte; margin: log-likelihood per byte of the gold
    choice minus that of the best other one; above 0 where acc_norm is 1.
    """

    margin: np.ndarray
    acc: np.ndarray
    acc_norm: np.ndarray


def score(items: Sequence[Item], log_likelihoods: np.ndarray) -> Scores:
    """Score log-likelihoods [N, choices] by the items' gold choices.

    The first of equals wins, as in lm-eval.
    """
    gold = np.array([item.gold for item in items])
    lengths = [[len(choice.encode()) for choice in item.choices] for item in items]
    rows = np.arange(len(items))
    wide = log_likelihoods.astype(np.float64)
    per_byte = wide / np.array(lengths)  # [N, choices]
    others = per_byte.copy()
    others[rows, gold] = -np.inf
    return Scores(
        margin=per_byte[rows, gold] - others.max(1),
        acc=(wide.argmax(1) == gold).astype(np.float64),
        acc_norm=(per_byte.argmax(1) == gold).astype(np.float64),
    )
