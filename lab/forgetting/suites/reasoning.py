"""Reasoning in one step.

Who is at the end of an order, how a sequence goes on, which day it will be, which rule holds.
Nothing has to be known but English, the order of the week, and counting.
"""

import random
from collections.abc import Iterator

from lab.forgetting.suites.draft import Draft, near

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Laura",
    "Mark",
    "Paul",
    "Sarah",
)
ORDERS = {  # comparative -> (most, least)
    "older": ("oldest", "youngest"),
    "taller": ("tallest", "shortest"),
    "faster": ("fastest", "slowest"),
    "richer": ("richest", "poorest"),
    "stronger": ("strongest", "weakest"),
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
KINDS = ("zib", "tov", "wug", "dax", "blick", "fep")
COLOURS = ("red", "blue", "green", "black", "white", "yellow")


def drafts(draw: random.Random) -> Iterator[Draft]:
    """Give all items."""
    yield from _orders(draw)
    yield from _sequences(draw)
    yield from _days(draw)
    yield from _rules(draw)


def _orders(draw: random.Random) -> Iterator[Draft]:
    """Three in an order; the end asked for is as often the first as the last."""
    for i in range(30):
        first, second, third, stranger = draw.sample(NAMES, 4)
        more = list(ORDERS)[i % len(ORDERS)]
        most = i % 2 == 0
        right, other = (first, third) if most else (third, first)
        told = f"{first} is {more} than {second}. {second} is {more} than {third}."
        yield Draft(
            "order",
            f"{told} The {ORDERS[more][0 if most else 1]} is",
            right,
            (other, second, stranger),
        )


def _sequences(draw: random.Random) -> Iterator[Draft]:
    """Four numbers that grow by the same step, or double."""
    for start, step in draw.sample([(a, d) for a in range(1, 21) for d in (2, 3, 4, 5, 10)], 18):
        shown = [start + step * i for i in range(4)]
        following = start + step * 4
        yield Draft(
            "step", ", ".join(map(str, shown)) + ",", str(following), near(following, shown[-1])
        )
    for start in range(1, 13):
        shown = [start * 2**i for i in range(4)]
        following = start * 16
        yield Draft(
            "doubling",
            ", ".join(map(str, shown)) + ",",
            str(following),
            near(following, start * 12),
        )


def _days(draw: random.Random) -> Iterator[Draft]:
    for i, later in draw.sample([(i, n) for i in range(7) for n in COUNTS], 25):
        right = DAYS[(i + later) % 7]
        others = [day for day in DAYS if day not in {right, DAYS[i]}]
        prompt = f"Today is {DAYS[i]}. In {COUNTS[later]} days it will be"
        yield Draft("day", prompt, right, (DAYS[i], *draw.sample(others, 2)))


def _rules(draw: random.Random) -> Iterator[Draft]:
    """Two rules about meaningless words; the first applies as often as the second."""
    for i in range(30):
        (one, two), (a, b, c, d) = draw.sample(KINDS, 2), draw.sample(COLOURS, 4)
        name = NAMES[i % len(NAMES)]
        mine, right, other = (one, a, b) if i % 2 == 0 else (two, b, a)
        prompt = f"Every {one} is {a}. Every {two} is {b}. {name} is a {mine}. {name} is"
        yield Draft("rule", prompt, right, (other, c, d))
