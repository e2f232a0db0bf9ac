"""Token sequences to look at attention on: text, and three kinds made to show one thing each.

natural         running text of Python's own documentation (`pydoc_data.topics`, in the standard
                library: about 100,000 tokens; other Python versions have another text)
random_tokens   no order to be found: what remains is not about content
one_token       the same token again and again: nothing tells one key from another
repeated        a first token, random tokens, and the same random tokens again: only copying helps
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIRST_PLAIN = 100  # smaller ids are special tokens and single bytes in most vocabularies
LAST_PLAIN = 20_000
UNREADABLE = "\ufffd"  # stands for bytes that are no whole character
MOST_TOGETHER = 8  # tokens that are tried together for the characters they share


def text() -> str:
    """Return the running text: all topics in the order of their names."""
    from pydoc_data import topics

    return "\n".join(topics.topics[name].strip() for name in sorted(topics.topics))


def natural(tokenizer: PreTrainedTokenizerBase, count: int, length: int) -> torch.Tensor:
    """Return `count` windows of `length` tokens [count, length], evenly spread over the text.

    No token is put in front: the first one is an ordinary word.
    """
    # Not verbose: the text is longer than the model takes, but only windows of it are used.
    ids = tokenizer.encode(text(), add_special_tokens=False, verbose=False)
    if len(ids) < count * length:
        msg = f"the text has {len(ids)} tokens; expected at least {count} x {length}"
        raise ValueError(msg)
    step = len(ids) // count
    return torch.tensor([ids[i * step : i * step + length] for i in range(count)])


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return what each token says.

    Vocabularies of bytes need several tokens for an emoji and for a letter of many scripts: each of
    them says all of it and its place, as "🙂(1/3)". Bytes that become no character are "\ufffd".
    """
    texts: list[str] = []
    while len(texts) < len(ids):
        rest = ids[len(texts) :][:MOST_TOGETHER]
        decoded = [tokenizer.decode(rest[: end + 1]) for end in range(len(rest))]
        whole = [end for end, text in enumerate(decoded) if UNREADABLE not in text]
        end = whole[0] if whole else 0
        if end == 0:
            texts.append(decoded[0])
        else:
            texts += [f"{decoded[end]}({place + 1}/{end + 1})" for place in range(end + 1)]
    return texts


def random_tokens(vocabulary: int, count: int, length: int, *, seed: int) -> torch.Tensor:
    """Return [count, length] ids, drawn evenly from the plain part of the vocabulary."""
    low, high = plain_range(vocabulary)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, length), generator=generator)


def one_token(vocabulary: int, count: int, length: int, *, seed: int) -> torch.Tensor:
    """Return [count, length] ids: each row one random token, again and again."""
    return random_tokens(vocabulary, count, 1, seed=seed).expand(count, length).contiguous()


def repeated(
    vocabulary: int, count: int, period: int, *, first_token: int, seed: int
) -> torch.Tensor:
    """Return [count, 1 + 2·period] ids: `first_token`, `period` random ids, and these again.

    Position q of the second copy (q > period) repeats q - period; the token that followed there is
    at q - (period - 1). The first token stands before both copies and replaces none, so that every
    token of the second copy is a repeat.
    """
    half = random_tokens(vocabulary, count, period, seed=seed)
    start = torch.full((count, 1), first_token)
    return torch.cat([start, half, half], dim=1)


def plain_range(vocabulary: int) -> tuple[int, int]:
    """Return the ids to draw from, low to high - 1; of a small vocabulary its upper half."""
    if vocabulary > 2 * FIRST_PLAIN:
        return FIRST_PLAIN, min(LAST_PLAIN, vocabulary)
    return vocabulary // 2, vocabulary
