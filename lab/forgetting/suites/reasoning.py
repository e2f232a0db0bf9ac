"""Reasoning in one step.

Who is at the end of an order, how a sequence goes on, which day it will be, which rule applies.
They need English, the order of the week and counting, and no other knowledge.
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
    """Yield all items."""
    yield from _orders(draw)
    yield from _sequences(draw)
    yield from _days(draw)
    yield from _rules(draw)


def _orders(draw: random.Random) -> Iterator[Draft]:
    """Yield three names in an order; the end asked for is as often the first as the last."""
    for i in range(30):
        first, second, third, stranger = draw.sample(NAMES, 4)
        more = list(ORDERS)[i % len(ORDERS)]
        most, least = ORDERS[more]
        if i % 2 == 0:
            end, right, other = most, first, third
        else:
            end, right, other = least, third, first
        order = f"{first} is {more} than {second}. {second} is {more} than {third}."
        yield Draft("order", f"{order} The {end} is", right, (other, second, stranger))


def _sequences(draw: random.Random) -> Iterator[Draft]:
    """Yield four numbers that grow by the same step, or double."""
    starts_and_steps = [(start, step) for start in range(1, 21) for step in (2, 3, 4, 5, 10)]
    for start, step in draw.sample(starts_and_steps, 18):
        numbers = [start + step * i for i in range(4)]
        following = start + step * 4
        wrong = near(following, numbers[-1])
        yield Draft("step", _listing(numbers), str(following), wrong)
    for start in range(1, 13):
        numbers = [start * 2**i for i in range(4)]
        following = start * 16
        yield Draft("doubling", _listing(numbers), str(following), near(following, start * 12))


def _listing(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) + ","


def _days(draw: random.Random) -> Iterator[Draft]:
    days_and_distances = [(day, distance) for day in range(7) for distance in COUNTS]
    for today, later in draw.sample(days_and_distances, 25):
        right = DAYS[(today + later) % 7]
        others = [day for day in DAYS if day not in {right, DAYS[today]}]
        prompt = f"Today is {DAYS[today]}. In {COUNTS[later]} days it will be"
        yield Draft("day", prompt, right, (DAYS[today], *draw.sample(others, 2)))


def _rules(draw: random.Random) -> Iterator[Draft]:
    """Yield two rules about meaningless words; the first applies as often as the second."""
    for i in range(30):
        one, two = draw.sample(KINDS, 2)
        a, b, c, d = draw.sample(COLOURS, 4)
        name = NAMES[i % len(NAMES)]
        if i % 2 == 0:
            kind, right, other = one, a, b
        else:
            kind, right, other = two, b, a
        prompt = f"Every {one} is {a}. Every {two} is {b}. {name} is a {kind}. {name} is"
        yield Draft("rule", prompt, right, (other, c, d))
