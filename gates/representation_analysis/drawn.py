"""What FEAT-015's text, its seed and its plan decide, drawn again: tokens, kinds, controls.

The rules are those that lab/representation_analysis/README.md states.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from gates.representation_analysis import arrays
from gates.shared import outputs, sequences
from gates.shared.stored import cached, config

PLANNED = {
    "sequences": {"count": 12, "length": 128},
    "test": {"count": 24, "length": 40, "ablated": 8},
    "lens": {"every": 8},
    "cka": {"layers": [12, 27]},
    "interventions": {"dimensions": 3},
    "model": "smollm2-135m",
}
Ids = list[list[int]]


def folder() -> Any:
    """Return the folder of the model."""
    return outputs.inputs()[config()["model"]]


def tokens() -> dict[str, Ids]:
    """Return the "ids" and "test_ids" that the text gives, and the "kinds" of the former."""
    return dict(cached(f"drawn tokens {arrays.settings_key()}", [], _draw))


def _draw() -> dict[str, Ids]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    text = tokenizer.encode(sequences.documentation(), add_special_tokens=False).ids
    settings, test = config()["sequences"], config()["test"]
    windows = sequences.windows(text, settings["count"] + test["count"], settings["length"])
    ids = windows[: settings["count"]]
    test_ids = [window[: test["length"]] for window in windows[settings["count"] :]]
    kinds = [[arrays.KINDS.index(kind_of(tokenizer.decode([id_]))) for id_ in row] for row in ids]
    return {"ids": ids, "test_ids": test_ids, "kinds": kinds}


def kind_of(text: str) -> str:
    """Return a token's kind, by what is left of its text without blanks around it."""
    word = text.strip()
    if word == "":
        return "blank"
    if all(character.isdigit() for character in word):
        return "digit"
    if not any(character.isalnum() for character in word):
        return "punctuation"
    return "inside a word" if text[:1] == word[:1] else "word start"


def control_dimensions(width: int, taken: Collection[int]) -> list[int]:
    """Return the control dimensions: a sample of all that are not taken, in their order."""
    free = [dimension for dimension in range(width) if dimension not in taken]
    return random.Random(arrays.seed()).sample(free, config()["interventions"]["dimensions"])


def lens_positions() -> list[int]:
    """Return the tokens that the lens looks at: the last one of every so many."""
    every = config()["lens"]["every"]
    length = config()["sequences"]["length"]
    return [position for position in range(length) if (position + 1) % every == 0]
