"""An item before its choices are ordered, and the wrong answers that arithmetic suggests."""

from dataclasses import dataclass

CHOICES = 4  # of every item: chance is a quarter


@dataclass(frozen=True)
class Draft:
    """The beginning of a sentence, its right end, and at least three wrong ones, the best first."""

    kind: str
    prompt: str
    right: str
    wrong: tuple[str, ...]


def near(value: int, *likely: int) -> tuple[str, ...]:
    """Return three wrong numbers of at least 0: those of likely mistakes, then neighbours.

    Neighbours of as many digits come first: a shorter number has fewer tokens, and could be
    recognised by that alone.
    """
    neighbours = [value + step for step in (1, -1, 2, 10, -2, -10, 3, 4, 5)]
    neighbours.sort(key=lambda other: len(str(other)) != len(str(value)))
    numbers = [n for n in (*likely, *neighbours) if n >= 0 and n != value]
    distinct = list(dict.fromkeys(numbers))
    return tuple(str(number) for number in distinct[:3])
