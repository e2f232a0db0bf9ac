"""Outputs in numbers and with names up to the limits: no command line of git grows with them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from quick import WORKER, Quick, plan

from phases.execution.collect import MAX_ENTRIES
from tests.soak import mark_soak

MANY = """
import os, pathlib
count = int(pathlib.Path("COUNT").read_text())
folder = pathlib.Path(os.environ["PHASES_OUT"]) / "notes"
folder.mkdir()
for number in range(count):
    (folder / f"{number:06d}{'n' * 200}.csv").write_text(f"{number}\\n")
"""


LONG_RESULTS = "/".join(letter * 200 for letter in "abcd")
CASES = [(9500, "results"), (2100, LONG_RESULTS)]


@pytest.mark.parametrize(("count", "results"), mark_soak(CASES, short=CASES[1:]))
def test_i_58_thousands_of_outputs_with_long_names(
    make_quick: Callable[..., Quick], count: int, results: str
) -> None:
    # 1. All paths of a commit do not fit on a command line.
    document = plan() | {"results": results}
    document["phases"][0]["features"][0]["outputs"].append("notes/**")
    quick = make_quick(document)
    quick.write("many.py", MANY)
    quick.write("COUNT", f"{count}")
    quick.write("worker.sh", WORKER + "python3 many.py\n")
    quick.commit("many outputs")

    # 2. They are recorded in one commit.
    quick.run("run", "--next")
    folder = f"{results}/Q-001/notes"
    names = quick.git("ls-tree", "-r", "--name-only", "HEAD", folder).splitlines()
    assert count <= len(names) < MAX_ENTRIES
    assert sum(len(name) + 1 for name in names) > os.sysconf("SC_ARG_MAX")

    # 3. An attempt that writes none removes all of them.
    quick.write("COUNT", "0")
    quick.commit("none")
    quick.run("run", "--feature", "Q-001", "--force")
    assert quick.git("ls-tree", "-r", "--name-only", "HEAD", folder) == ""
    assert quick.git("status", "--porcelain") == ""
