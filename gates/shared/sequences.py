"""Token sequences as the lab's instruments make them, and what their tokens say.

Code of its own; torch is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

FIRST_PLAIN, LAST_PLAIN = 100, 20_000  # ids to draw from, where the vocabulary is large
UNREADABLE = "\ufffd"  # what a tokenizer decodes bytes to that are no character
MOST_TOGETHER = 8


def documentation() -> str:
    """Return Python's own documentation of its topics, in the order of their names."""
    from pydoc_data import topics

    return "\n".join(topics.topics[name].strip() for name in sorted(topics.topics))


def windows(ids: Sequence[int], count: int, length: int) -> list[list[int]]:
    """Return `count` windows of `length` ids, evenly spread."""
    step = len(ids) // count
    return [list(ids[number * step : number * step + length]) for number in range(count)]


def random_tokens(vocabulary: int, count: int, length: int, seed: int) -> list[list[int]]:
    """Return ids drawn by torch's generator: 100 to 19,999, or a small vocabulary's upper half."""
    import torch

    low, high = vocabulary // 2, vocabulary
    if vocabulary > 2 * FIRST_PLAIN:
        low, high = FIRST_PLAIN, min(LAST_PLAIN, vocabulary)
    generator = torch.Generator().manual_seed(seed)
    ids: list[list[int]] = torch.randint(low, high, (count, length), generator=generator).tolist()
    return ids


def repeated(first: int, halves: Sequence[list[int]]) -> list[list[int]]:
    """Return sequences of a first token and each half twice."""
    return [[first, *half, *half] for half in halves]


def texts(decode: Callable[[list[int]], str], ids: Sequence[int]) -> list[str]:
    """Return a text per token; each of n tokens that are one character together says "🙂(2/n)".

    decode: ids -> their text.
    """
    labels: list[str] = []
    start = 0
    while start < len(ids):
        size = _readable(decode, list(ids[start : start + MOST_TOGETHER]))
        text = decode(list(ids[start : start + size]))
        if size == 1:
            labels.append(text)
        for place in range(1, size + 1) if size > 1 else ():
            labels.append(f"{text}({place}/{size})")
        start += size
    return labels


def _readable(decode: Callable[[list[int]], str], ids: list[int]) -> int:
    """Return how many of the first tokens are readable together; 1 if no number of them is."""
    for size in range(1, len(ids) + 1):
        if UNREADABLE not in decode(ids[:size]):
            return size
    return 1
