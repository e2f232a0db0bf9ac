"""Four suites of multiple-choice items, the same on every machine.

They test what a fine-tuning on docstrings could spoil. Arithmetic, reasoning and code are
generated, and the answers computed; knowledge is a list of undisputed facts. Every item is the
beginning of a sentence (or of an equation, or of a Python assertion) and four ways to end it, one
of them right. Choices are ASCII, so that their bytes are their characters.
"""

import random
from collections.abc import Callable, Iterable

from lab.forgetting.suites import code, knowledge, maths, reasoning
from lab.forgetting.suites.draft import CHOICES, Draft
from lab.instruments.multiple_choice import Item

SUITES: dict[str, Callable[[random.Random], Iterable[Draft]]] = {
    "lab_math": maths.drafts,
    "lab_reasoning": reasoning.drafts,
    "lab_code": code.drafts,
    "lab_knowledge": knowledge.drafts,
}
VERSION = 1  # of the items: a change of any of them is another version


class SuiteError(ValueError):
    """A suite is too small or has an invalid item."""


def build(name: str, count: int) -> tuple[Item, ...]:
    """Return the first `count` items of a suite; the right choice is at each index equally often.

    Raises:
        SuiteError: the suite is smaller, a prompt occurs twice, or an item's choices are not four
            different ones.
    """
    draw = random.Random(name)
    drafts = list(SUITES[name](draw))
    draw.shuffle(drafts)
    if len({draft.prompt for draft in drafts}) != len(drafts):
        msg = f"{name}: a prompt occurs twice"
        raise SuiteError(msg)
    if len(drafts) < count:
        msg = f"{name} has {len(drafts)} items; expected at least {count}"
        raise SuiteError(msg)
    golds = [i % CHOICES for i in range(count)]
    draw.shuffle(golds)
    return tuple(
        _item(name, draft, gold) for draft, gold in zip(drafts[:count], golds, strict=True)
    )


def _item(suite: str, draft: Draft, gold: int) -> Item:
    wrong = draft.wrong[: CHOICES - 1]
    choices = (*wrong[:gold], draft.right, *wrong[gold:])
    if len(choices) != CHOICES or len(set(choices)) != CHOICES or not "".join(choices).isascii():
        msg = (
            f"{suite}: {draft.prompt!r} has the choices {choices}; expected {CHOICES} "
            "different ones in ASCII"
        )
        raise SuiteError(msg)
    return Item(suite, draft.kind, draft.prompt, choices, gold)
