"""What an experiment or a gate leaves cannot be read or removed: no run fails because of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invariants import entries, leftovers, violations
from quick import GATE, WORKER, Quick, feature, plan

DEEP = """
import os, pathlib, sys
os.chdir(sys.argv[1])
for levels, name in ((32, "d" * 250), (1400, "dd")):
    descriptor = os.open(".", os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=descriptor)
        descriptor, parent = os.open(name, os.O_RDONLY, dir_fd=descriptor), descriptor
        os.close(parent)
    os.close(os.open("file.json", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
"""
OTHERS = """
mkdir -p "$1/others/private"
echo 1 > "$1/others/private/file.json"
chown -R 65534:65534 "$1/others" 2>/dev/null || true
chmod 0 "$1/others/private" "$1/others"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make these folders")


def make(root: Path, script: str, document: dict[str, Any] | None = None) -> Quick:
    """Return a repository whose worker also does what a script says."""
    quick = Quick(root, document)
    quick.write("deep.py", DEEP)
    quick.write("others.sh", OTHERS)
    quick.write("worker.sh", WORKER + script)
    quick.commit("an untidy worker")
    return quick


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return a folder in memory, where there is one: a disk takes long for thousands of folders."""
    folder = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=folder if folder.is_dir() else None) as path:
        yield Path(path)


def test_deep_and_foreign_folders_beside_the_outputs_are_removed_i_61(memory: Path) -> None:
    """In TMPDIR, HOME and the copy of the commit."""
    script = "for d in $TMPDIR $HOME .; do python3 deep.py $d; sh others.sh $d; done\n"
    quick = make(memory / "quick", script)
    result = quick.run("run", "--next")
    assert "warning" not in result.stderr
    verified = next(block for block in entries(quick.root) if block.kind == "VERIFIED")
    # Of the copy it says so.
    assert any("discarded from its copy: dd/dd/" in line for line in verified.lines)
    assert violations(quick.root) == []
    assert leftovers(quick.root, quick.temporary) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('python3 deep.py "$PHASES_OUT"\n', "folders nested deeper than 16"),
        ('sh others.sh "$PHASES_OUT"\n', "others"),
        ('python3 deep.py "$PHASES_OUT/artifacts"\n', "folders nested deeper than 16"),
    ],
    ids=["deep", "foreign", "deep artifacts"],
)
def test_such_outputs_are_refused_in_clear_words_i_61(
    script: str, message: str, memory: Path
) -> None:
    quick = make(memory / "quick", script)
    quick.run("run", "--next", code=1)
    last = entries(quick.root)[-1]
    assert last.kind == "ERRORED"
    assert any("folder" in line or "others" in line for line in last.lines), last.lines
    record = json.loads((quick.root / "results/Q-001/attempts/1.json").read_text())
    assert any(message in reason for reason in record["reasons"])
    # What a path can name is kept for a reader.
    assert (quick.root / ".phases/quarantine/Q-001/1/result.json").exists()
    assert leftovers(quick.root, quick.temporary) == []


GATES = {
    "beside": (
        "sh $OTHERS $TMPDIR; $DEEP $TMPDIR; $DEEP $HOME; $DEEP $PHASES_GATE_CACHE || true",
        0,
    ),
    "in what it judges": ("chmod 700 .; $DEEP .; sh $OTHERS .", 1),
}


@pytest.mark.parametrize("place", GATES)
def test_a_gate_that_leaves_deep_folders_is_judged_i_61(place: str, memory: Path) -> None:
    action, code = GATES[place]
    action = action.replace("$DEEP", f"python3 {memory}/deep.py")
    action = action.replace("$OTHERS", f"{memory}/others.sh")
    document = plan()
    document["phases"][0]["features"] = [feature(1, gate={"shell": f"{GATE} && {{ {action}; }}"})]
    (memory / "deep.py").write_text(DEEP)
    (memory / "others.sh").write_text(OTHERS)
    quick = make(memory / "quick", "", document)
    result = quick.run("run", "--next", code=code)
    assert ("the gate changed its input" in result.stderr) == (code == 1)
    assert violations(quick.root) == []
    assert leftovers(quick.root, quick.temporary) == []


#### what nobody can remove


@pytest.fixture
def clean_up(tmp_path: Path) -> Iterator[None]:
    yield
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(str(tmp_path)):
            subprocess.run(["umount", line.split()[4]], check=True)
    subprocess.run(["chattr", "-R", "-i", tmp_path], check=False, capture_output=True)


def can(*words: str | Path) -> bool:
    return not subprocess.run(words, check=False, capture_output=True).returncode


@needs_root
@pytest.mark.usefixtures("clean_up")
def test_what_cannot_be_removed_is_named_and_tried_again_i_61(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("kept")
    if not (can("chattr", "+i", mine) and can("chattr", "-i", mine) and can("unshare", "-m")):
        pytest.skip("no immutable files or no mounts here")
    script = f"""
    for folder in $TMPDIR . $HOME; do mkdir -p $folder/x/deep $folder/y/deep; done
    touch x/file; chattr +i x/file
    chattr +i $TMPDIR/x
    mount --bind {mine} $HOME/x/deep
    """

    # 1. The run comes to its end, and says what is left.
    quick = make(tmp_path / "quick", script, plan(attempts=100))
    result = quick.run("run", "--next")
    [folder] = quick.temporary.iterdir()
    assert result.stderr.count(f"warning: {folder} cannot be removed whole") == 1
    rest = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    copy = {"tree", "tree/x", "tree/x/file"}
    home = {"home", "home/x", "home/x/deep", "home/x/deep/file"}
    assert rest == {"lock", "tmp", "tmp/x", *copy, *home} | (rest & {"tmp/x/deep"})

    # 2. Later runs go on, and one of them removes it when that is possible.
    quick.write("worker.sh", WORKER)
    quick.commit("a tidy worker")
    again = quick.run("run", "--feature", "Q-001", "--force")
    assert "warning" not in again.stderr
    assert folder.exists()
    assert (mine / "file").read_text() == "kept"
    assert can("umount", folder / "home/x/deep")
    assert can("chattr", "-R", "-i", folder)
    quick.run("run", "--feature", "Q-001", "--force")
    assert leftovers(quick.root, quick.temporary) == []
    assert violations(quick.root) == []
    assert (mine / "file").read_text() == "kept"
