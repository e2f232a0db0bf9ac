"""Four suites of multiple-choice items, the same on every machine.

They ask for what a fine-tuning on docstrings could spoil. Arithmetic, reasoning and code are
generated, and the answers computed; knowledge is a list of facts that nobody disputes. Every item
is the beginning of a sentence (or of an equation, or of a Python assertion) and four ways to end
it, one of them right. Choices are ASCII, so that their bytes are their characters.
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
    """A suite holds what must not be in it."""


def build(name: str, count: int) -> tuple[Item, ...]:
    """Give the first `count` items of a suite; the right choice stands at each place equally often.

    Raises:
        SuiteError: the suite is smaller, or a prompt comes twice, or an item's choices are not four
            different ones.
    """
    draw = random.Random(name)
    drafts = list(SUITES[name](draw))
    draw.shuffle(drafts)
    if len({draft.prompt for draft in drafts}) != len(drafts):
        msg = f"{name}: a prompt comes twice"
        raise SuiteError(msg)
    if len(drafts) < count:
        msg = f"{name} holds {len(drafts)} items, wanted {count}"
        raise SuiteError(msg)
    places = [i % CHOICES for i in range(count)]
    draw.shuffle(places)
    return tuple(
        _item(name, draft, place) for draft, place in zip(drafts[:count], places, strict=True)
    )


def _item(suite: str, draft: Draft, place: int) -> Item:
    wrong = draft.wrong[: CHOICES - 1]
    choices = (*wrong[:place], draft.right, *wrong[place:])
    if len(choices) != CHOICES or len(set(choices)) != CHOICES or not "".join(choices).isascii():
        msg = (
            f"{suite}: {draft.prompt!r} has the choices {choices}; wanted {CHOICES} "
            "different ones in ASCII"
        )
        raise SuiteError(msg)
    return Item(suite, draft.kind, draft.prompt, choices, place)
