"""An independent checker of what must hold after every fault.

It reads progress.txt, the records and git, with code of its own: nothing of `phases` is imported, so that a mistake of
the runner's cannot excuse itself. Each finding begins with the invariant's name.

    I1  no acknowledged record is lost               I7  the user's unrelated changes are untouched
    I2  one VERIFIED per feature and attempt         I8  no partial file at a final place
    I3  the chain is valid                           I9  a documented exit code, and one hint on stderr
    I4  progress.txt only grows, commit by commit    I10 the same end as an undisturbed run
    I5  every VERIFIED has evidence that matches     I11 no process, temporary file or staging folder is left
    I6  nothing of phase k+1 before k's approval     I12 no leftover lock blocks
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 7, 130}
NEEDS_REMEDY = {3, 4, 5, 6, 7}
BLOCK = re.compile(
    rb"\n(### (\d{4,}) \xc2\xb7 \S+ \xc2\xb7 ([A-Z]+)([^\n]*)\n((?:- [^\n]*\n)*?)"
    rb"- chain prev=([0-9a-f]{64})) self=([0-9a-f]{64})\n"
)
PLACE = re.compile(r" · Phase (\d+)(?: · (\S+) .*)?")


@dataclass(frozen=True)
class Block:
    """One entry as this checker reads it."""

    seq: int
    kind: str
    phase: int | None
    feature: str | None
    facts: tuple[str, ...]
    prev: str
    self_hash: str
    sealed: bytes

    def named(self, word: str) -> tuple[str, str] | None:
        """(digest, path) of the fact `word sha256:… path`."""
        for fact in self.facts:
            if found := re.fullmatch(rf"{word} sha256:([0-9a-f]{{64}}) (\S+)", fact):
                return found[1], found[2]
        return None

    @property
    def attempt(self) -> str | None:
        """The attempt's number."""
        found = re.search(r"attempt (\d+),", "\n".join(self.facts))
        return found[1] if found else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


def progress(root: Path) -> bytes:
    path = root / "progress.txt"
    return path.read_bytes() if path.exists() else b""


def read(data: bytes) -> tuple[list[Block], bytes]:
    """The entries, and what stands behind the last one."""
    blocks, end = [], data.find(b"\n### ")
    if end < 0:
        return [], b""
    while found := BLOCK.match(data, end):
        place = PLACE.fullmatch(found[4].decode())
        blocks.append(
            Block(
                int(found[2]),
                found[3].decode(),
                int(place[1]) if place else None,
                place[2] if place else None,
                tuple(line[2:] for line in found[5].decode().splitlines()),
                found[6].decode(),
                found[7].decode(),
                found[1],
            )
        )
        end = found.end()
    return blocks, data[end:]


def entries(root: Path) -> list[Block]:
    return read(progress(root))[0]


#### the record


def violations(root: Path, before: bytes = b"") -> list[str]:
    """I1 to I6 of the record as it stands; `before` is progress.txt as it stood, acknowledged, earlier."""
    return [*_chain(root, before), *_commits(root), *_evidence(root), *_order(root)]


def _chain(root: Path, before: bytes) -> Iterator[str]:
    data = progress(root)
    if not data.startswith(before):
        yield "I1 progress.txt does not begin with what was acknowledged before"
    blocks, rest = read(data)
    if rest:
        yield f"I3 behind the last entry stand {len(rest)} bytes that are no entry"
    prev = sha256(data[: data.find(b"\n### ")] if blocks else data)
    seen: set[tuple[object, ...]] = set()
    for number, block in enumerate(blocks, 1):
        if block.seq != number or block.prev != prev or sha256(block.sealed) != block.self_hash:
            yield f"I3 entry {block.seq} does not follow the one before, or was edited"
        prev = block.self_hash
        key = (block.phase, block.feature, block.attempt)
        if block.kind == "VERIFIED" and key in seen:
            yield f"I2 entry {block.seq} is the second VERIFIED of {key}"
        seen |= {key} if block.kind == "VERIFIED" else set()


def _commits(root: Path) -> Iterator[str]:
    older, txns = b"", set()
    form = "--format=%H %(trailers:key=Phases-Txn,valueonly,separator=%x2C)"
    lines = git(root, "log", "--first-parent", "--reverse", form).decode().splitlines()
    for line in lines:
        commit, _, txn = line.partition(" ")
        newer = git(root, "show", f"{commit}:progress.txt")
        if not newer.startswith(older):
            yield f"I4 commit {commit[:12]} holds a progress.txt that does not begin with the one before"
        older = newer
        if txn and txn in txns:
            yield f"I2 commit {commit[:12]} records transaction {txn} a second time"
        txns.add(txn)
    if not progress(root).startswith(older):
        yield "I4 progress.txt does not begin with HEAD's"


def _evidence(root: Path) -> Iterator[str]:
    at = {
        line.partition(" ")[2]: line.partition(" ")[0]
        for line in git(
            root, "log", "--format=%H %(trailers:key=Phases-Entry,valueonly,separator=%x2C)"
        )
        .decode()
        .splitlines()
    }
    committed = len(read(git(root, "show", "HEAD:progress.txt"))[0])
    for block in entries(root):
        if block.kind != "VERIFIED" or block.seq > committed:
            continue  # what is not committed yet is a pending outcome; recovery's end shows it committed
        commit = at.get(f"{block.seq:04d}")
        if commit is None:
            yield f"I5 no commit carries entry {block.seq}"
            continue
        yield from _evidence_of(root, block, commit)


def _evidence_of(root: Path, block: Block, commit: str) -> Iterator[str]:
    for word in ("receipt", "verdict"):
        named = block.named(word)
        data = git(root, "show", f"{commit}:{named[1]}") if named else b""
        if named is None or sha256(data) != named[0]:
            yield f"I5 entry {block.seq}: its {word} is not in its commit with the digest that it names"
            return
        document = json.loads(data)
        home = named[1].rpartition("/")[0]
        for item in document["subject"]:
            digest = item["digest"]["sha256"]
            if item["name"].startswith("artifacts/"):
                path = root / ".phases/artifacts" / digest[:2] / digest
                held = path.read_bytes() if path.exists() else b""
            else:
                held = git(root, "show", f"{commit}:{home}/{item['name']}")
            if sha256(held) != digest:
                yield f"I5 entry {block.seq}: {item['name']} does not have the digest in its {word}"


def _order(root: Path) -> Iterator[str]:
    approved: set[int] = set()
    for block in entries(root):
        if block.phase and block.phase > 1 and block.phase - 1 not in approved:
            yield f"I6 entry {block.seq} is of phase {block.phase} before phase {block.phase - 1} was approved"
        named = block.named("record")
        if block.kind == "APPROVED":
            path = root / named[1] if named else None
            if (
                path is None
                or not path.exists()
                or sha256(path.read_bytes()) != (named or ("",))[0]
            ):
                yield f"I6 entry {block.seq} approves without its record"
            else:
                approved.add(block.phase or 0)
        if block.kind == "REJECTED":
            approved.discard(block.phase or 0)


#### what a fault may leave


@dataclass(frozen=True)
class Untouched:
    """What belongs to the user: files outside the runner's, the index for them, and the configuration."""

    files: Mapping[str, str]
    index: bytes
    config: bytes


RUNNERS = ("progress.txt", ".progress.txt.", "results/", ".phases/", ".git/", "prd/approvals/")
"""What is not the user's; the second is a temporary file between a kill and the next run, which I8 asks about."""


def untouched(root: Path) -> Untouched:
    """The user's part of a repository, to compare with later."""
    files = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith(RUNNERS):
            files[name] = f"{path.stat().st_mode:o} {sha256(path.read_bytes())}"
    staged = [line for line in git(root, "ls-files", "-s", "-z").split(b"\0") if line]
    own = [line for line in staged if not line.split(b"\t", 1)[1].decode().startswith(RUNNERS)]
    return Untouched(files, b"\0".join(own), (root / ".git/config").read_bytes())


def user_violations(root: Path, before: Untouched) -> list[str]:
    """I7: what changed of the user's."""
    now = untouched(root)
    changed = {
        name
        for name in {*before.files, *now.files}
        if before.files.get(name) != now.files.get(name)
    }
    found = [f"I7 {name} of the user's changed" for name in sorted(changed)]
    found += ["I7 the user's part of the index changed"] if now.index != before.index else []
    return found + (["I7 .git/config changed"] if now.config != before.config else [])


def leftovers(root: Path, temporary: Path | None = None) -> list[str]:
    """I8, I11, I12 once a run has ended by itself."""
    return [*_partial(root), *processes(root, temporary), *_locks(root)]


def _partial(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.tmp")):
        yield f"I8 {path.relative_to(root)} was left"
    for path in (root / ".phases/pending").glob("*") if (root / ".phases/pending").is_dir() else ():
        yield f"I8 {path.name} was prepared and not recorded"
    status = git(root, "status", "--porcelain", "-z", "--", "results", "prd/approvals").decode()
    blocks, committed = entries(root), len(read(git(root, "show", "HEAD:progress.txt"))[0])
    waiting = {
        named[1] for block in blocks[committed:] if (named := block.named("lock"))
    }  # LOCKED goes along later
    for item in filter(None, status.split("\0")):
        if item[3:].rstrip("/") not in waiting and not any(
            name.startswith(item[3:]) for name in waiting
        ):
            yield f"I8 {item!r} is not as committed"


def processes(root: Path, temporary: Path | None) -> Iterator[str]:
    places = [str(place) for place in (root, temporary) if place]
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            where, command = str((folder / "cwd").readlink()), (folder / "cmdline").read_bytes()
            zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if not zombie and any(
            where.startswith(place) or place.encode() in command for place in places
        ):
            yield f"I11 process {folder.name} is left: {command[:120]!r}"
    for path in temporary.iterdir() if temporary else ():
        yield f"I11 {path.name} is left in the folder for temporary files"


def _locks(root: Path) -> Iterator[str]:
    common = root / ".git"
    for path in sorted(common.rglob("*.lock")):
        yield f"I12 git's {path.relative_to(common)} is left"
    lock = common / "phases/lock"
    if lock.exists():
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "I12 the runner's lock is still held"


def exit_violations(done: Any) -> list[str]:
    """I9 of a finished process."""
    found = (
        [] if done.returncode in EXIT_CODES else [f"I9 exit {done.returncode} is not documented"]
    )
    if "Traceback" in done.stderr:
        found.append(f"I9 a traceback: {done.stderr[-300:]!r}")
    if done.returncode in NEEDS_REMEDY and "next: " not in done.stderr:
        found.append(f"I9 exit {done.returncode} without a hint: {done.stderr[-300:]!r}")
    return found


#### the end


def shape(root: Path) -> dict[str, Any]:
    """The end of a run without what may differ: numbers of attempts, ids, times and interruptions."""
    kept = [
        (block.kind, block.phase, block.feature)
        for block in entries(root)
        if block.kind not in ("STARTED", "INTERRUPTED", "RECOVERED", "REPAIRED")
    ]
    files = git(root, "ls-tree", "-r", "--name-only", "HEAD").decode().split()
    results = {
        name: sha256(git(root, "show", f"HEAD:{name}"))
        for name in files
        if name.startswith("results/") and name.endswith(("result.json", "lock.json"))
    }
    subjects = [
        line
        for line in git(root, "log", "--format=%s").decode().splitlines()
        if not line.endswith(": interrupted")
    ]
    return {
        "entries": kept,
        "files": sorted(files),
        "results": results,
        "commits": subjects,
        "clean": git(root, "status", "--porcelain").decode(),
        "log ref": git(root, "rev-parse", "refs/phases/log") == git(root, "rev-parse", "HEAD"),
        "committed": git(root, "show", "HEAD:progress.txt") == progress(root),
        "journal": (root / ".git/phases/journal").read_bytes() == progress(root),
    }
