"""The sequences on which the models' attention is compared.

task        held-out examples, question and answer, as in training
text        running text that has nothing to do with the task
repeated    random tokens, said twice: for the induction score alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.instruments import sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lab.instruments.data import Example

COMPARED = ("task", "text")  # kinds whose patterns are compared
REPEATED = "repeated"
FIRST_QUERY = 7  # the first with 8 keys: a row of few keys cannot differ much


@dataclass(frozen=True)
class Prompt:
    """One sequence: its kind and its token ids."""

    kind: str
    ids: tuple[int, ...]


def build(
    settings: dict[str, Any],
    evaluation: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    first_token: int,
) -> tuple[Prompt, ...]:
    """Return all prompts, kind by kind.

    Args:
        settings: the config's `prompts`.
        evaluation: held-out examples; the first are used.
        tokenizer: of the model.
        first_token: what a repeated sequence begins with.
    """
    prompts = [Prompt("task", example.encoded.ids) for example in evaluation[: settings["task"]]]

    windows = sequences.natural(tokenizer, settings["text"], settings["text_tokens"])
    prompts += [Prompt("text", tuple(row)) for row in windows.tolist()]

    repeated = sequences.repeated(
        len(tokenizer),
        settings["repeated"],
        settings["period"],
        first_token=first_token,
        seed=settings["seed"],
    )
    prompts += [Prompt(REPEATED, tuple(row)) for row in repeated.tolist()]
    return tuple(prompts)
