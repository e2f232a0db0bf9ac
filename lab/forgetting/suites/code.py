"""Python: what an expression is equal to.

The answers are what Python itself gives when the items are built.
"""

import ast
import random
from collections.abc import Callable, Iterator

from lab.forgetting.suites.draft import Draft, near

WORDS = (
    "apple",
    "river",
    "stone",
    "cloud",
    "tiger",
    "music",
    "paper",
    "window",
    "garden",
    "silver",
    "bridge",
    "yes",
)


def drafts(draw: random.Random) -> Iterator[Draft]:
    """Give all items."""
    makers: tuple[tuple[Callable[[random.Random], tuple[str, tuple[str, ...]]], int], ...] = (
        (_length, 12),
        (_aggregate, 24),
        (_operator, 18),
        (_element, 16),
        (_letter, 12),
        (_text, 12),
        (_count, 12),
    )
    seen: set[str] = set()
    for make, count in makers:
        wanted = len(seen) + count
        while len(seen) < wanted:
            expression, wrong = make(draw)
            right = repr(eval(expression, {}))  # made by the functions below, and by nobody else
            if expression in seen:
                continue
            seen.add(expression)
            others = tuple(dict.fromkeys(other for other in wrong if other != right))
            likely = near(ast.literal_eval(right)) if right.isdecimal() else ()
            kind = make.__name__.removeprefix("_")
            yield Draft(
                kind, f"assert {expression} ==", right, tuple(dict.fromkeys((*others, *likely)))[:3]
            )


def _numbers(draw: random.Random, count: int) -> list[int]:
    return draw.sample(range(1, 10), count)


def _length(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    if draw.random() < 0.5:
        return f"len({draw.choice(WORDS)!r})", ()
    return f"len({_numbers(draw, draw.randrange(2, 6))})", ()


def _aggregate(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    numbers, function = _numbers(draw, 3), draw.choice(("sum", "max", "min"))
    return f"{function}({numbers})", tuple(str(n) for n in (*numbers, len(numbers)))


def _operator(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    a, b, sign = draw.randrange(11, 40), draw.randrange(3, 10), draw.choice(("%", "//", "*"))
    return f"{a} {sign} {b}", tuple(str(n) for n in (a // b, a % b))


def _element(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    numbers, place = _numbers(draw, 4), draw.choice((0, 1, 2, 3, -1))
    return f"{numbers}[{place}]", tuple(str(n) for n in numbers)


def _letter(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    word, place = draw.choice(WORDS[:-1]), draw.choice((0, 1, 2, -1))
    return f"{word!r}[{place}]", tuple(
        repr(letter) for letter in (word[0], word[-1], word[1], word[2], word[3])
    )


def _text(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    word, method = draw.choice(WORDS[:-1]), draw.choice(("upper", "title", "replace"))
    other = f"{word[0]}{word}"
    wrong = tuple(repr(text) for text in (word, word.upper(), word.title(), other))
    if method == "replace":
        return f"{word!r}.replace({word[0]!r}, {word[:2]!r})", tuple(
            repr(t) for t in (word, word[1:], other.title())
        )
    return f"{word!r}.{method}()", wrong


def _count(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    numbers = [draw.randrange(1, 4) for _ in range(5)]
    wanted = draw.choice(sorted(set(numbers)))
    return f"{numbers}.count({wanted})", tuple(
        str(n) for n in (1, 2, 3, 4) if n != numbers.count(wanted)
    )
