"""Arithmetic, all of integers.

Sums, differences, products, quotients, halves, doubles, squares and shares of 100.
"""

import random
from collections.abc import Iterator

from lab.forgetting.suites.draft import Draft, near

EACH = 16  # of the four operations; the kinds in words fill the rest


def drafts(draw: random.Random) -> Iterator[Draft]:
    """Yield all items."""
    for a, b in _pairs(draw, range(3, 60), range(3, 40)):
        yield Draft("sum", f"{a} + {b} =", str(a + b), near(a + b, abs(a - b)))
    for a, b in _pairs(draw, range(30, 99), range(3, 29)):
        yield Draft("difference", f"{a} - {b} =", str(a - b), near(a - b, a + b))
    for a, b in _pairs(draw, range(3, 13), range(3, 13)):
        yield Draft("product", f"{a} * {b} =", str(a * b), near(a * b, a * (b + 1), a + b))
    for a, b in _pairs(draw, range(3, 13), range(2, 10)):
        yield Draft("quotient", f"{a * b} / {b} =", str(a), near(a, a * b - b))
    for n in draw.sample(range(6, 49), 10):
        yield Draft("half", f"Half of {2 * n} is", str(n), near(n, 4 * n))
    for n in draw.sample(range(6, 49), 10):
        yield Draft("double", f"Twice {n} is", str(2 * n), near(2 * n, n))
    for n in range(3, 13):
        yield Draft("square", f"The square of {n} is", str(n * n), near(n * n, 2 * n))
    for share, of in _pairs(draw, (10, 20, 25, 50), range(20, 201, 20), 10):
        right = share * of // 100
        yield Draft("percent", f"{share}% of {of} is", str(right), near(right, of - share))


def _pairs(
    draw: random.Random, first: range | tuple[int, ...], second: range, count: int = EACH
) -> list[tuple[int, int]]:
    return draw.sample([(a, b) for a in first for b in second], count)
