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
    """Yield all items."""
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
        kind = make.__name__.removeprefix("_")
        goal = len(seen) + count
        while len(seen) < goal:
            expression, likely = make(draw)
            right = repr(eval(expression, {}))  # made by the functions below, by nothing else
            if expression in seen:
                continue
            seen.add(expression)
            wrong = [other for other in likely if other != right]
            if right.isdecimal():
                wrong += near(ast.literal_eval(right))
            distinct = tuple(dict.fromkeys(wrong))
            yield Draft(kind, f"assert {expression} ==", right, distinct[:3])


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
    numbers, index = _numbers(draw, 4), draw.choice((0, 1, 2, 3, -1))
    return f"{numbers}[{index}]", tuple(str(n) for n in numbers)


def _letter(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    word, index = draw.choice(WORDS[:-1]), draw.choice((0, 1, 2, -1))
    letters = (word[0], word[-1], word[1], word[2], word[3])
    return f"{word!r}[{index}]", tuple(repr(letter) for letter in letters)


def _text(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    word, method = draw.choice(WORDS[:-1]), draw.choice(("upper", "title", "replace"))
    other = f"{word[0]}{word}"
    wrong: tuple[str, ...]
    if method == "replace":
        expression = f"{word!r}.replace({word[0]!r}, {word[:2]!r})"
        wrong = (word, word[1:], other.title())
    else:
        expression = f"{word!r}.{method}()"
        wrong = (word, word.upper(), word.title(), other)
    return expression, tuple(repr(text) for text in wrong)


def _count(draw: random.Random) -> tuple[str, tuple[str, ...]]:
    numbers = [draw.randrange(1, 4) for _ in range(5)]
    number = draw.choice(sorted(set(numbers)))
    right = numbers.count(number)
    return f"{numbers}.count({number})", tuple(str(n) for n in (1, 2, 3, 4) if n != right)
