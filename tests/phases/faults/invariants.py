"""An independent checker of what must hold after every fault.

It reads progress.txt, the records and git with code of its own: it imports nothing of `phases`, so
a bug of the runner's cannot hide itself. Each violation begins with the invariant's name.

    I1  no acknowledged record is lost             I7  the user's other changes are untouched
    I2  one VERIFIED per feature and attempt       I8  no partial file at a final path
    I3  the chain is valid                         I9  a documented exit code, and one hint
    I4  progress.txt only grows, commit by commit  I10 the same end as an undisturbed run
    I5  every VERIFIED has evidence that matches   I11 no process or temporary file is left
    I6  nothing of phase k+1 before k's approval   I12 no leftover lock blocks
    I13 the receipt's commit, laid out anew, reproduces the outputs
    I14 an outcome or decision is one entry that one commit with fitting trailers brought, a
        decision together with its record, which no other entry names
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 7, 130}
NEEDS_HINT = {3, 4, 5, 6, 7}
START = b"\n### "
BLOCK = re.compile(
    rb"\n(?P<sealed>### (?P<seq>\d{4,}) \xc2\xb7 \S+ \xc2\xb7 (?P<kind>[A-Z]+)(?P<subject>[^\n]*)\n"
    rb"(?P<body>(?:- [^\n]*\n)*?)"
    rb"- chain prev=(?P<prev>[0-9a-f]{64})) self=(?P<self>[0-9a-f]{64})\n"
)
SUBJECT = re.compile(r" · Phase (?P<phase>\d+)(?: · (?P<feature>\S+) .*)?")


@dataclass(frozen=True)
class Block:
    """One entry as this checker reads it."""

    seq: int
    kind: str
    phase: int | None
    feature: str | None
    lines: tuple[str, ...]
    """The lines between heading and chain, without their `- `."""
    prev: str
    self_hash: str
    sealed: bytes

    def named_file(self, word: str) -> tuple[str, str] | None:
        """Return (digest, path) of the line `word sha256:… path`, or None."""
        for line in self.lines:
            match = re.fullmatch(rf"{word} sha256:([0-9a-f]{{64}}) (\S+)", line)
            if match:
                return match[1], match[2]
        return None

    @property
    def attempt(self) -> str | None:
        """The attempt's number, as the entry states it."""
        match = re.search(r"attempt (\d+),", "\n".join(self.lines))
        if match is None:
            return None
        return match[1]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git(root: Path, *words: str) -> bytes:
    """Return what git printed; nothing if it failed."""
    process = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    if process.returncode != 0:
        return b""
    return process.stdout


def progress(root: Path) -> bytes:
    path = root / "progress.txt"
    if not path.exists():
        return b""
    return path.read_bytes()


def parse_blocks(data: bytes) -> tuple[list[Block], bytes]:
    """Return the entries, and what follows the last one."""
    blocks: list[Block] = []
    position = data.find(START)
    if position < 0:
        return blocks, b""
    while match := BLOCK.match(data, position):
        subject = SUBJECT.fullmatch(match["subject"].decode())
        phase, feature = None, None
        if subject:
            phase, feature = int(subject["phase"]), subject["feature"]
        block = Block(
            seq=int(match["seq"]),
            kind=match["kind"].decode(),
            phase=phase,
            feature=feature,
            lines=tuple(line[2:] for line in match["body"].decode().splitlines()),
            prev=match["prev"].decode(),
            self_hash=match["self"].decode(),
            sealed=match["sealed"],
        )
        blocks.append(block)
        position = match.end()
    return blocks, data[position:]


def entries(root: Path) -> list[Block]:
    """Return the entries of progress.txt in the work tree."""
    blocks, _ = parse_blocks(progress(root))
    return blocks


def committed_entries(root: Path) -> list[Block]:
    """Return the entries of HEAD's progress.txt."""
    blocks, _ = parse_blocks(git(root, "show", "HEAD:progress.txt"))
    return blocks


#### the record

OUTCOMES = ("VERIFIED", "FAILED", "ERRORED", "HALTED")
RESULTS = {"APPROVED": "pass", "REJECTED": "fail", "WAIVED": "waive", "LOCKED": "relock"}
"""Kind of an entry -> result of the decision record that it names."""
NAMED_FILES = ("receipt", "verdict", "attempt-record", "request", "record", "lock")


def violations(root: Path, before: bytes = b"") -> list[str]:
    """Return violations of I1 to I6 and I14.

    `before` is progress.txt as it was acknowledged earlier.
    """
    return [
        *_chain_violations(root, before),
        *_commit_violations(root),
        *_evidence_violations(root),
        *_order_violations(root),
        *_origin_violations(root),
        *_decision_violations(root),
    ]


def _chain_violations(root: Path, before: bytes) -> Iterator[str]:
    # 1. Nothing is lost, and everything can be read.
    data = progress(root)
    if not data.startswith(before):
        yield "I1 progress.txt does not begin with what was acknowledged before"
    blocks, rest = parse_blocks(data)
    if rest:
        yield f"I3 {len(rest)} bytes after the last entry are no entry"

    # 2. Each entry follows the one before it; the first one follows the header.
    header = data
    if blocks:
        header = data[: data.find(START)]
    prev = sha256(header)
    verified: set[tuple[object, ...]] = set()
    for number, block in enumerate(blocks, 1):
        if block.seq != number or block.prev != prev or sha256(block.sealed) != block.self_hash:
            yield f"I3 entry {block.seq} does not follow the one before, or was edited"
        prev = block.self_hash

        # 3. No attempt is verified twice.
        if block.kind == "VERIFIED":
            attempt = (block.phase, block.feature, block.attempt)
            if attempt in verified:
                yield f"I2 entry {block.seq} is the second VERIFIED of {attempt}"
            verified.add(attempt)


def _commit_violations(root: Path) -> Iterator[str]:
    older = b""
    txns: set[str] = set()
    template = "--format=%H %(trailers:key=Phases-Txn,valueonly,separator=%x2C)"
    log = git(root, "log", "--first-parent", "--reverse", template).decode()
    for line in log.splitlines():
        commit, _, txn = line.partition(" ")
        newer = git(root, "show", f"{commit}:progress.txt")
        if not newer.startswith(older):
            yield f"I4 progress.txt of commit {commit[:12]} does not begin with the one before"
        older = newer
        if txn and txn in txns:
            yield f"I2 commit {commit[:12]} records transaction {txn} a second time"
        txns.add(txn)
    if not progress(root).startswith(older):
        yield "I4 progress.txt does not begin with HEAD's"


def _evidence_violations(root: Path) -> Iterator[str]:
    # 1. Number of an entry -> the oldest commit whose trailer names it. HEAD is read before it: git
    #    may still commit for a runner that was killed.
    count = len(committed_entries(root))
    commits = {}
    template = "--format=%H %(trailers:key=Phases-Entry,valueonly,separator=%x2C)"
    for line in git(root, "log", template).decode().splitlines():
        commit, _, number = line.partition(" ")
        commits[number] = commit

    # 2. The evidence of each committed VERIFIED. What is not committed yet is a pending outcome;
    #    the end of the recovery shows it committed.
    for block in entries(root):
        if block.kind != "VERIFIED" or block.seq > count:
            continue
        commit = commits.get(f"{block.seq:04d}")
        if commit is None:
            yield f"I5 no commit holds entry {block.seq}"
            continue
        yield from _document_violations(root, block, commit)


def reproduction_violations(root: Path, feature: str | None = None) -> list[str]:
    """Run what the newest receipts name, in their commits laid out anew, and compare the outputs.

    `feature` chooses one; by default it is every feature that is verified.
    """
    newest = {}
    for block in entries(root):
        if block.kind == "VERIFIED" and feature in (None, block.feature):
            newest[block.feature] = block
    problems = []
    for block in newest.values():
        _, path = block.named_file("receipt") or ("", "")
        problems += _reproduction_violations(root, json.loads((root / path).read_text()), block)
    return problems


def _reproduction_violations(root: Path, receipt: Any, block: Block) -> Iterator[str]:
    # 1. The commit that the receipt names, file by file.
    definition = receipt["predicate"]["buildDefinition"]
    commits = {item["uri"]: item["digest"] for item in definition["resolvedDependencies"]}
    with tempfile.TemporaryDirectory() as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        out.mkdir()
        _lay_out(root, commits["git"]["gitCommit"], tree)

        # 2. The same command.
        names = {"python": sys.executable, "OUT": str(out), "INPUTS": os.devnull}
        argv = [names.get(word, word) for word in definition["externalParameters"]["argv"]]
        variables = {"PHASES_OUT": str(out), "PHASES_EVENTS": f"{folder}/events"}
        variables |= {"PYTHONDONTWRITEBYTECODE": "1", "PHASES_INPUTS": os.devnull}
        search_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = subprocess.run(
            argv,
            cwd=tree,
            env={"PATH": search_path, **variables},
            capture_output=True,
            check=False,
        )
        if process.returncode:
            yield f"I13 entry {block.seq}: ended with {process.returncode}: {process.stderr!r}"

        # 3. The same outputs.
        actual = {
            path.relative_to(out).as_posix(): sha256(path.read_bytes())
            for path in out.rglob("*")
            if path.is_file()
        }
        expected = {item["name"]: item["digest"]["sha256"] for item in receipt["subject"]}
        if actual != expected:
            yield f"I13 entry {block.seq}: got {actual}; the receipt names {expected}"


def _lay_out(root: Path, commit: str, folder: Path) -> None:
    """Write a commit's files and links to a folder, from git's objects, but no bytecode."""
    folder.mkdir()
    for record in git(root, "ls-tree", "-r", "-z", commit).split(b"\0")[:-1]:
        fields, name = record.split(b"\t", 1)
        mode, _kind, blob = fields.decode().split()
        path = folder / os.fsdecode(name)
        if "__pycache__" in path.parts:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "160000":
            path.mkdir()
            continue
        data = git(root, "cat-file", "blob", blob)
        if mode == "120000":
            path.symlink_to(os.fsdecode(data))
        else:
            path.write_bytes(data)
            path.chmod(int(mode[-3:], 8))


def _document_violations(root: Path, block: Block, commit: str) -> Iterator[str]:
    """Yield what is wrong with receipt and verdict of one entry, and with what they name."""
    for word in ("receipt", "verdict"):
        # 1. The document is in the commit with the digest that the entry names.
        digest, path = block.named_file(word) or ("", "")
        data = git(root, "show", f"{commit}:{path}")
        if not path or sha256(data) != digest:
            yield f"I5 entry {block.seq}: its commit has no {word} with the digest that it names"
            return

        # 2. So is every output: artifacts in the store, the others beside the document.
        folder = path.rpartition("/")[0]
        for item in json.loads(data)["subject"]:
            name, digest = item["name"], item["digest"]["sha256"]
            if name.startswith("artifacts/"):
                artifact = root / ".phases/artifacts" / digest[:2] / digest
                output = b""
                if artifact.exists():
                    output = artifact.read_bytes()
            else:
                output = git(root, "show", f"{commit}:{folder}/{name}")
            if sha256(output) != digest:
                yield f"I5 entry {block.seq}: {name} does not have the digest in its {word}"


def _order_violations(root: Path) -> Iterator[str]:
    approved: set[int] = set()
    count = len(committed_entries(root))  # a killed decision may not have written its record yet
    for block in entries(root):
        phase = block.phase or 0
        if phase > 1 and phase - 1 not in approved:
            yield f"I6 entry {block.seq} is of phase {phase} before the approval of {phase - 1}"
        if block.kind == "APPROVED":
            digest, path = block.named_file("record") or ("", "")
            record = root / path
            if path and record.exists() and sha256(record.read_bytes()) == digest:
                approved.add(phase)
            elif block.seq <= count:
                yield f"I6 entry {block.seq} approves without its record"
        if block.kind == "REJECTED":
            approved.discard(phase)


#### where entries and records come from


@dataclass(frozen=True)
class RecordingCommit:
    """A commit that changed progress.txt, and what it brought."""

    sha: str
    parents: tuple[str, ...]
    stated: str
    """Number and hash of its last entry, as its trailers state them; empty without trailers."""
    last: str
    """The same of the last entry that it holds."""
    brought: tuple[Block, ...]
    """Entries that none of its parents has."""


def recording_commits(root: Path) -> Iterator[RecordingCommit]:
    """Yield every commit of HEAD's history, merges included, that differs in progress.txt."""
    trailers = ",".join(
        f"%(trailers:key=Phases-{key},valueonly,separator=%x2C)" for key in ("Entry", "Head")
    )
    template = f"--format=%H|%P|{trailers}"
    log = git(root, "log", "--full-history", template, "--", "progress.txt").decode()
    for line in log.splitlines():
        sha, parents, stated = line.split("|", 2)
        older = set()
        for parent in parents.split():
            blocks, _ = parse_blocks(git(root, "show", f"{parent}:progress.txt"))
            older |= {block.self_hash for block in blocks}
        blocks, _ = parse_blocks(git(root, "show", f"{sha}:progress.txt"))
        yield RecordingCommit(
            sha=sha,
            parents=tuple(parents.split()),
            stated=stated.strip(","),
            last=f"{blocks[-1].seq:04d},{blocks[-1].self_hash}" if blocks else "",
            brought=tuple(block for block in blocks if block.self_hash not in older),
        )


def is_binding(block: Block) -> bool:
    """Return whether an entry is an outcome or a decision: only those move the state for good."""
    is_decision = block.kind in RESULTS and (block.kind != "LOCKED" or block.named_file("record"))
    return block.kind in OUTCOMES or bool(is_decision)


def _origin_violations(root: Path) -> Iterator[str]:
    """Yield I14 where an outcome or a decision did not come in one commit of its own."""
    committed = committed_entries(root)  # before the commits: git may still make one
    commits_of: dict[str, int] = {}
    for commit in recording_commits(root):
        # 1. Its trailers state what it holds.
        binding = [block for block in commit.brought if is_binding(block)]
        short = commit.sha[:12]
        if binding and commit.stated != commit.last:
            yield f"I14 entry {binding[0].seq} came with commit {short}, without fitting trailers"

        # 2. It brought one of them; a waiver of several features is one decision.
        decided = {block.named_file("record") or block.self_hash for block in binding}
        if len(decided) > 1:
            yield f"I14 commit {short} brought {len(decided)} outcomes or decisions"

        # 3. A decision's record came with it.
        for block in binding:
            commits_of[block.self_hash] = commits_of.get(block.self_hash, 0) + 1
            if block.kind not in RESULTS:
                continue
            digest, path = block.named_file("record") or ("", "")
            if not path or sha256(git(root, "show", f"{commit.sha}:{path}")) != digest:
                yield f"I14 entry {block.seq} came without the record that it names"
            elif any(git(root, "ls-tree", parent, "--", path) for parent in commit.parents):
                yield f"I14 entry {block.seq} names a record that was there before it"
    for block in committed:
        count = commits_of.get(block.self_hash, 0)
        if is_binding(block) and count != 1:
            yield f"I14 {count} commits brought entry {block.seq}"


def _decision_violations(root: Path) -> Iterator[str]:
    """Yield I14 where a committed entry and the record that it names do not say the same."""
    blocks = committed_entries(root)
    waiting = _waiting_halts(blocks)
    named: dict[str, set[tuple[str, int | None]]] = {}
    for block in blocks:
        # 1. What another machine recorded is taken over by an entry that records nothing itself.
        if block.kind == "PULLED" and (block.phase or any(map(block.named_file, NAMED_FILES))):
            yield f"I14 entry {block.seq} is PULLED and names a phase or a file"

        # 2. The record is the one that the entry names, and says the same.
        digest, path = block.named_file("record") or ("", "")
        if not path:
            continue
        named.setdefault(path, set()).add((block.kind, block.phase))
        data = git(root, "show", f"HEAD:{path}")
        if sha256(data) != digest:
            yield f"I14 HEAD does not have the record that entry {block.seq} names"
            continue
        document = json.loads(data)
        decision = document["predicate"]
        if (decision["result"], decision["phase"]["id"]) != (RESULTS.get(block.kind), block.phase):
            yield f"I14 entry {block.seq} is {block.kind}; its record says otherwise"
        if block.kind == "APPROVED":
            yield from _approval_violations(block, waiting.get(block.seq), document)
    for path, subjects in named.items():
        if len(subjects) > 1:
            yield f"I14 {path} is named by entries of {sorted(kind for kind, _ in subjects)}"


def _waiting_halts(blocks: list[Block]) -> dict[int, Block]:
    """Return number of an entry -> the HALTED of its phase that waited for an answer before it."""
    waiting = {}
    halts: dict[int | None, Block] = {}
    for block in blocks:
        if block.phase in halts:
            waiting[block.seq] = halts[block.phase]
        if block.kind in ("REPAIRED", "RECOVERED"):
            halts.clear()  # a review binds progress.txt as it was
        elif block.kind == "HALTED":
            halts[block.phase] = block
        elif block.kind in (*OUTCOMES, *RESULTS, "STARTED"):
            halts.pop(block.phase, None)
    return waiting


def _approval_violations(block: Block, halt: Block | None, document: Any) -> Iterator[str]:
    """Yield I14 unless an approval is of the request that waits."""
    if halt is None:
        yield f"I14 entry {block.seq} approves, and no HALTED of its phase stands"
        return
    request = halt.named_file("request") or ("", "")
    subjects = {item["name"]: item for item in document["subject"]}
    reviewed = subjects["progress.txt"]["annotations"]
    if (reviewed["entry"], reviewed["head"]) != (halt.seq, halt.self_hash):
        yield f"I14 entry {block.seq} approves entry {reviewed['entry']}; entry {halt.seq} waits"
    if subjects.get(request[1], {}).get("digest") != {"sha256": request[0]}:
        yield f"I14 entry {block.seq} approves another request than entry {halt.seq} names"


#### what is the user's


@dataclass(frozen=True)
class Untouched:
    """What is the user's: files outside the runner's, the index for them, the configuration."""

    files: Mapping[str, str]
    index: bytes
    config: bytes


RUNNERS = ("progress.txt", ".progress.txt.", "results/", ".phases/", ".git/", "prd/approvals/")
"""What is not the user's; the second is a temporary file before the next run, see I8."""


def untouched(root: Path) -> Untouched:
    """Return the user's part of a repository, to compare with later."""
    files = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith(RUNNERS):
            files[name] = f"{path.stat().st_mode:o} {sha256(path.read_bytes())}"
    index = []
    for line in git(root, "ls-files", "-s", "-z").split(b"\0"):
        name = line.partition(b"\t")[2].decode()
        if line and not name.startswith(RUNNERS):
            index.append(line)
    return Untouched(files, b"\0".join(index), (root / ".git/config").read_bytes())


def user_violations(root: Path, before: Untouched) -> list[str]:
    """Return violations of I7: what changed of the user's."""
    now = untouched(root)
    problems = []
    for name in sorted({*before.files, *now.files}):
        if before.files.get(name) != now.files.get(name):
            problems.append(f"I7 {name} of the user's changed")
    if now.index != before.index:
        problems.append("I7 the user's part of the index changed")
    if now.config != before.config:
        problems.append("I7 .git/config changed")
    return problems


#### what a run that ended by itself must not leave


def leftovers(root: Path, temporary: Path | None = None) -> list[str]:
    """Return violations of I8, I11 and I12."""
    return [*_partial_files(root), *processes(root, temporary), *_locks(root)]


def _partial_files(root: Path) -> Iterator[str]:
    # 1. Temporary files and prepared outcomes.
    for path in sorted(root.rglob("*.tmp")):
        yield f"I8 {path.relative_to(root)} is left"
    for path in (root / ".phases").glob("pending/*"):
        yield f"I8 {path.name} was prepared and not recorded"

    # 2. Results that differ from HEAD. A lock is committed with the outcome that follows it.
    uncommitted_locks = []
    for block in entries(root)[len(committed_entries(root)) :]:
        lock = block.named_file("lock")
        if lock:
            uncommitted_locks.append(lock[1])
    status = git(root, "status", "--porcelain", "-z", "--", "results", "prd/approvals").decode()
    for item in filter(None, status.split("\0")):
        name = item[3:]  # after two letters and a blank; a folder ends in a slash
        is_lock = name.rstrip("/") in uncommitted_locks
        holds_lock = any(lock.startswith(name) for lock in uncommitted_locks)
        if not is_lock and not holds_lock:
            yield f"I8 {item!r} differs from HEAD"


def processes(root: Path, temporary: Path | None) -> Iterator[str]:
    """Yield I11 for every process in these folders or with one in its command, and their files."""
    folders = [str(folder) for folder in (root, temporary) if folder]
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            directory = str((process / "cwd").readlink())
            command = (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            continue
        for folder in folders:
            if directory.startswith(folder) or folder.encode() in command:
                yield f"I11 process {process.name} is left: {command[:120]!r}"
                break
    if temporary:
        for path in temporary.iterdir():
            yield f"I11 {path.name} is left in the folder for temporary files"


def _locks(root: Path) -> Iterator[str]:
    common_dir = root / ".git"
    for path in sorted(common_dir.rglob("*.lock")):
        yield f"I12 git's {path.relative_to(common_dir)} is left"
    lock = common_dir / "phases/lock"
    if lock.exists():
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "I12 the runner's lock is still held"


def exit_violations(process: Any) -> list[str]:
    """Return violations of I9 by a process that has ended."""
    code, stderr = process.returncode, process.stderr
    problems = []
    if code not in EXIT_CODES:
        problems.append(f"I9 exit {code} is not documented")
    if "Traceback" in stderr:
        problems.append(f"I9 a traceback: {stderr[-300:]!r}")
    if code in NEEDS_HINT and "next: " not in stderr:
        problems.append(f"I9 exit {code} without a hint: {stderr[-300:]!r}")
    return problems


#### the end

NOT_COMPARED = ("STARTED", "INTERRUPTED", "RECOVERED", "REPAIRED")


def shape(root: Path) -> dict[str, Any]:
    """Return the end of a run without what may differ: attempts, ids, times, interruptions."""
    # 1. Entries, files and commits.
    compared = []
    for block in entries(root):
        if block.kind not in NOT_COMPARED:
            compared.append((block.kind, block.phase, block.feature))
    files = git(root, "ls-tree", "-r", "--name-only", "HEAD").decode().split()
    results = {}
    for name in files:
        if name.startswith("results/") and name.endswith(("result.json", "lock.json")):
            results[name] = sha256(git(root, "show", f"HEAD:{name}"))
    commits = []
    for line in git(root, "log", "--format=%s").decode().splitlines():
        if not line.endswith(": interrupted"):
            commits.append(line)

    # 2. progress.txt, its journal and HEAD are the same.
    text, head = progress(root), git(root, "rev-parse", "HEAD")
    return {
        "entries": compared,
        "files": sorted(files),
        "results": results,
        "commits": commits,
        "clean": git(root, "status", "--porcelain").decode(),
        "log ref": git(root, "rev-parse", "refs/phases/log") == head,
        "committed": git(root, "show", "HEAD:progress.txt") == text,
        "journal": (root / ".git/phases/journal").read_bytes() == text,
    }


def end(root: Path) -> dict[str, Any]:
    """Return what is the same at the end whatever was decided, repeated or committed on the way.

    That are the results and the approvals that count, and the files that must agree at every end.
    Numbers of attempts, decisions on the way, locks of a plan that changed and the user's commits
    differ.
    """
    # 1. The state that the entries lead to.
    approved: list[int | None] = []
    verified: dict[str | None, int | None] = {}
    for block in entries(root):
        if block.kind == "REJECTED" and block.phase in approved:
            approved.remove(block.phase)
        if block.kind == "APPROVED":
            approved.append(block.phase)
        if block.kind in (*OUTCOMES, "WAIVED") and block.feature:
            verified.pop(block.feature, None)
        if block.kind == "VERIFIED":
            verified[block.feature] = block.phase

    # 2. Results; progress.txt, its journal and HEAD; the ref at the newest commit of the runner's.
    text = progress(root)
    files = git(root, "ls-tree", "-r", "--name-only", "HEAD").decode().split()
    names = [name for name in files if name.endswith("/result.json")]
    runners = git(root, "log", "-1", "--format=%H", "--grep=^Phases-Head: ").strip()
    return {
        "approved": approved,
        "verified": dict(sorted(verified.items(), key=str)),
        "results": {name: sha256(git(root, "show", f"HEAD:{name}")) for name in names},
        "clean": git(root, "status", "--porcelain").decode(),
        "log ref": git(root, "rev-parse", "refs/phases/log").strip() == runners,
        "committed": git(root, "show", "HEAD:progress.txt") == text,
        "journal": (root / ".git/phases/journal").read_bytes() == text,
    }
