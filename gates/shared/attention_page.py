"""The attention page without its title and its data: markup, policy, style and program.

Whoever exchanges the program shows other pictures of the same data. The digest is that of the page
that `lab/present` makes; a test keeps them equal.
"""

from __future__ import annotations

import hashlib
import re

from gates.shared import outputs

FRAME_SHA256 = "082f1b568fbcc05da8b7b29ad8d25d96e818ac2a4e54e225ea0739a0e7a1a263"
TITLE = re.compile("<title>[^<]*</title>")
DATA = re.compile('(<script type="application/json" id="data">)[^<]*</script>')


def assert_frame_is_that_of_the_lab(name: str) -> None:
    """Check an output page; its title and data are judged elsewhere."""
    digest = frame_digest((outputs.out() / name).read_text("utf-8"))
    assert digest == FRAME_SHA256, f"{name}: markup, style or program is not that of lab/present"


def frame_digest(page: str) -> str:
    """Return the SHA-256 of a page whose first title and data are empty."""
    frame = DATA.sub(r"\1</script>", TITLE.sub("<title></title>", page, count=1), count=1)
    return hashlib.sha256(frame.encode()).hexdigest()
