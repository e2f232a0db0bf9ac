"""An item before its choices have places, and the wrong answers that arithmetic suggests."""

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
    """Three wrong numbers of at least 0: those that a likely mistake gives, then neighbours.

    Neighbours of as many digits come first: a shorter number has fewer tokens, and could be told
    by that alone.
    """
    neighbours = [value + step for step in (1, -1, 2, 10, -2, -10, 3, 4, 5)]
    alike = sorted(neighbours, key=lambda other: len(str(other)) != len(str(value)))
    found = dict.fromkeys(other for other in (*likely, *alike) if other >= 0 and other != value)
    return tuple(str(other) for other in list(found)[:3])
