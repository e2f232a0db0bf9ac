"""The attention page without its title and its data: markup, policy, style and program.

Whoever exchanges the program shows other pictures of the same data. The digest is that of the page
that `lab/present` makes; a test keeps them equal.
"""

from __future__ import annotations

import hashlib
import re

from gates.shared import outputs

FRAME_SHA256 = "a2cb5372896ae5b9d83598597126627714b4592656c42637b2a9e0e5759bbf4f"
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
