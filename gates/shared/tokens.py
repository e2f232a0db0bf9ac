"""What tokens say, as the pages of attention show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNREADABLE = "\ufffd"  # what a tokenizer decodes bytes to that are no character
MOST_TOGETHER = 8


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
