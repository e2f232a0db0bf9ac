"""The list of instruments names every one, and nothing else."""

import re
from pathlib import Path

from lab import instruments


def test_the_readme_names_each_instrument_once() -> None:
    folder = Path(instruments.__file__).parent
    rows = re.findall(r"^\| `(\S+\.py)` \| \S.* \|$", (folder / "README.md").read_text(), re.M)
    assert rows == sorted(path.name for path in folder.glob("*.py"))
