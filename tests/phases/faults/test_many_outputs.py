"""Outputs in numbers and with names up to the limits: no command line of git grows with them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

import pytest
from quick import GATE, WORKER, Quick, plan

from phases.execution.collect import MAX_FILES
from tests.soak import mark_soak

MANY = """
import os, pathlib
count = int(pathlib.Path("COUNT").read_text())
folder = pathlib.Path(os.environ["PHASES_OUT"]) / "notes"
folder.mkdir()
for number in range(count):
    (folder / f"{number:06d}{'n' * 200}.csv").write_text(f"{number}\\n")
"""


LONG_RESULTS = "/".join(letter * 200 for letter in "abcdefghi")
CASES = [(MAX_FILES - 2, "results", None), (200, LONG_RESULTS, 1 << 20)]
# Whatever their number, the files hold 0, 1, 2 … in the order of their names.
ALL_NOTES = (
    "find notes -type f 2>/dev/null | sort > $TMPDIR/names; "
    "seq 0 99999 | head -n $(wc -l < $TMPDIR/names) > $TMPDIR/expected; "
    "xargs cat < $TMPDIR/names | cmp -s - $TMPDIR/expected"
)


@pytest.fixture
def stack_limit() -> Iterator[Callable[[int], None]]:
    """Return what limits the stack; a command line may have a quarter of that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_STACK, (limit, hard))
    resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


@pytest.mark.parametrize(("count", "results", "stack"), mark_soak(CASES, short=CASES[1:]))
def test_i_58_many_outputs_with_long_names(
    make_quick: Callable[..., Quick],
    stack_limit: Callable[[int], None],
    count: int,
    results: str,
    stack: int | None,
) -> None:
    if stack is not None:
        stack_limit(stack)
    # 1. All paths of a commit do not fit on a command line.
    document = plan() | {"results": results}
    feature = document["phases"][0]["features"][0]
    feature["outputs"].append("notes/**")
    feature["gate"] = {"shell": f"{GATE} && {{ {ALL_NOTES}; }}"}
    quick = make_quick(document)
    quick.write("many.py", MANY)
    quick.write("COUNT", f"{count}")
    quick.write("worker.sh", WORKER + "python3 many.py\n")
    quick.commit("many outputs")

    # 2. They are recorded in one commit.
    quick.run("run", "--next")
    folder = f"{results}/Q-001/notes"
    names = quick.git("ls-tree", "-r", "--name-only", "HEAD", folder).splitlines()
    assert len(names) == count  # result.json and an artifact are outputs too
    assert sum(len(name) + 1 for name in names) > os.sysconf("SC_ARG_MAX")

    # 3. An attempt that writes none removes all of them.
    quick.write("COUNT", "0")
    quick.commit("none")
    quick.run("run", "--feature", "Q-001", "--force")
    assert quick.git("ls-tree", "-r", "--name-only", "HEAD", folder) == ""
    assert quick.git("status", "--porcelain") == ""
