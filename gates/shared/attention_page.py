"""The attention page read back: its data, and its frame, which is all but title and data.

Whoever exchanges the program in the frame shows other pictures of the same data. The digest is that
of the page that `lab/present` makes; a test keeps them equal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Mapping
from typing import Any

from gates.shared import outputs

FRAME_SHA256 = "082f1b568fbcc05da8b7b29ad8d25d96e818ac2a4e54e225ea0739a0e7a1a263"
TITLE = re.compile("<title>[^<]*</title>")
DATA = re.compile('(<script type="application/json" id="data">)([^<]*)</script>')
LEVELS = 255  # a share is a whole number of 255ths
MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def assert_frame_is_that_of_the_lab(name: str) -> None:
    """Check an output page; its title and data are judged elsewhere."""
    digest = frame_digest((outputs.out() / name).read_text("utf-8"))
    assert digest == FRAME_SHA256, f"{name}: markup, style or program is not that of lab/present"


def frame_digest(page: str) -> str:
    """Return the SHA-256 of a page whose first title and data are empty."""
    frame = DATA.sub(r"\1</script>", TITLE.sub("<title></title>", page, count=1), count=1)
    return hashlib.sha256(frame.encode()).hexdigest()


def data(name: str) -> dict[str, Any]:
    """Return the data that an output page carries."""
    match = DATA.search((outputs.out() / name).read_text("utf-8"))
    assert match, f"{name} has no data"
    document: dict[str, Any] = json.loads(match[2])
    return document


def share_gap(variant: Mapping[str, Any], pattern: Any) -> float:
    """Return the largest difference of a packed share from a pattern [L, H, T, T], in levels.

    The shares are the lower triangles, row by row; another number of them differs by all levels.
    """
    import numpy as np

    shares = np.frombuffer(zlib.decompress(base64.b64decode(variant["shares"])), np.uint8)
    rows, columns = np.tril_indices(pattern.shape[-1])
    expected = LEVELS * pattern[:, :, rows, columns]  # [L, H, T(T+1)/2]
    if shares.size != expected.size:
        return float(LEVELS)
    return float(np.abs(shares.reshape(expected.shape) - expected).max())


def shown_token(text: str) -> str:
    """Return a token as the page shows it: blanks as signs, unseen characters by their number."""
    shown = ""
    for character in text:
        if character in MARKS:
            shown += MARKS[character]
        elif character.isprintable() or unicodedata.category(character) == "Zs":
            shown += character
        else:
            shown += f"⟨U+{ord(character):04X}⟩"
    return shown
