"""Multiple choice without generating: each choice's log-likelihood after the prompt, in one pass.

The prompt is computed once for its choices: the row holds the prompt and behind it every choice,
and the mask lets a choice see the prompt and itself alone. A choice of one token needs no place of
its own, as nothing is predicted after it. Names of scores are those of lm-evaluation-harness: acc
takes the highest log-likelihood, acc_norm the highest per character of the choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    """A question: `choices` are possible ends of `prompt`, that at `gold` is right.

    `kind` names how it was made.
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
        """Number of places in a pack."""
        return len(self.prompt) + sum(len(choice) - 1 for choice in self.choices)


class ChoiceError(ValueError):
    """An item cannot be scored."""


def encode(tokenizer: "PreTrainedTokenizerBase", item: Item) -> Tokens:
    """Tokens of prompt and choices.

    Raises:
        ChoiceError: tokens straddle the border of prompt and choice, so that the choice has no
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
def log_likelihoods(model: "PreTrainedModel | PeftModel", items: Sequence[Tokens]) -> np.ndarray:
    """Σ log p(token | what stands before it) of every choice, in nats: float32 [items, choices]."""
    model.eval()
    rows: list[torch.Tensor] = []
    for group in _fill(items):
        rows += _scores(model, group)
    return torch.stack(rows).cpu().numpy()


def _fill(items: Sequence[Tokens]) -> Iterator[list[Tokens]]:
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
    """A pack in the making.

    Per place its token, position, item and branch; per predicted token where it is read.
    """

    ids: list[int]
    positions: list[int]
    items: list[int]
    branches: list[int]  # 0: the prompt; 1, 2, …: the choices
    reads: list[list[list[int]]]  # item -> choice -> places
    targets: list[list[tuple[int, ...]]]


def _row(group: Sequence[Tokens]) -> _Row:
    row = _Row([], [], [], [], [], [])
    for number, item in enumerate(group):
        start, length = len(row.ids), len(item.prompt)
        _append(row, item.prompt, 0, number, 0)
        reads = []
        for branch, choice in enumerate(item.choices, start=1):
            first = len(row.ids)
            _append(row, choice[:-1], length, number, branch)
            reads.append([start + length - 1, *range(first, len(row.ids))])
        row.reads.append(reads)
        row.targets.append(list(item.choices))
    return row


def _append(row: _Row, ids: Sequence[int], position: int, item: int, branch: int) -> None:
    row.ids += ids
    row.positions += range(position, position + len(ids))
    row.items += [item] * len(ids)
    row.branches += [branch] * len(ids)


def _scores(model: "PreTrainedModel | PeftModel", group: Sequence[Tokens]) -> list[torch.Tensor]:
    """Log-likelihoods [choices] of each item of one pack."""
    row, device = _row(group), next(model.parameters()).device
    items, branches = torch.tensor(row.items), torch.tensor(row.branches)
    order = torch.arange(len(row.ids))
    own = (items[:, None] == items[None]) & (
        (branches[:, None] == branches[None]) | (branches == 0)[None]
    )
    mask = own & (order[:, None] >= order[None])  # [T, T]
    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = language_model.base_model(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        attention_mask=mask[None, None].to(device),
        use_cache=False,
    ).last_hidden_state[0]  # [T, d]
    read = sorted({place for reads in row.reads for places in reads for place in places})
    log_p = language_model.get_output_embeddings()(hidden[read]).float().log_softmax(-1)  # [R, V]
    at = {place: i for i, place in enumerate(read)}

    def total(places: Sequence[int], targets: Sequence[int]) -> torch.Tensor:
        return log_p[[at[place] for place in places], list(targets)].sum()

    return [
        torch.stack([total(places, targets) for places, targets in zip(*pair, strict=True)])
        for pair in zip(row.reads, row.targets, strict=True)
    ]


@dataclass(frozen=True)
class Scores:
    """Per item [N]: margin in nats/byte, and whether the gold choice wins.

    acc: it wins by likelihood; acc_norm: per byte; margin: log-likelihood per byte of the gold
    choice minus that of the best other one; above 0 where acc_norm is 1.
    """

    margin: np.ndarray
    acc: np.ndarray
    acc_norm: np.ndarray


def score(items: Sequence[Item], found: np.ndarray) -> Scores:
    """Judge log-likelihoods [N, choices] by the items' gold choices.

    The first of equals wins, as in lm-eval.
    """
    gold = np.array([item.gold for item in items])
    lengths = np.array([[len(choice.encode()) for choice in item.choices] for item in items])
    wide, rows = found.astype(np.float64), np.arange(len(items))
    per_byte = wide / lengths
    others = per_byte.copy()
    others[rows, gold] = -np.inf
    return Scores(
        margin=per_byte[rows, gold] - others.max(1),
        acc=(wide.argmax(1) == gold).astype(np.float64),
        acc_norm=(per_byte.argmax(1) == gold).astype(np.float64),
    )
