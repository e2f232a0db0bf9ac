"""The last record of a repository, taken apart, edited and put together again.

An adversary who knows the format rewrites a whole commit: documents, entries, hashes, trailers,
journal and ref. Here every digest follows from what was edited, so that the only thing wrong is the
statement itself. `forge` edits the commit that HEAD is; `rewind` makes an earlier one the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toy import Toy

from phases.base import durable
from phases.record import entries
from phases.record.entries import GateSummary
from phases.record.ledger import Entry, Ledger, parse_ledger, seal_entry

DOCUMENTS = ("lock", "receipt", "verdict", "attempt-record", "request", "record")
"""First words of the lines that name a file; what is named later may name what is named before."""
FOLLOWING = (
    entries.PREDICTIONS,
    entries.GATE,
    entries.MEASUREMENT_COVERAGE,
    entries.MUTANTS,
    entries.DIGEST_ONLY,
    entries.EXEMPT,
    entries.FAILING,
)
"""Lines that follow from a verdict."""


@dataclass
class Draft:
    """An entry under edit."""

    entry: Entry
    title: str
    lines: list[str]

    def replace(self, old: str, new: str) -> None:
        """Replace a passage of the lines; it must be there."""
        changed = [line.replace(old, new) for line in self.lines]
        assert changed != self.lines, f"no {old!r} in {self.lines}"
        self.lines[:] = changed

    def index(self, start: str) -> int:
        """Return the number of the first line that starts so."""
        numbers = [number for number, line in enumerate(self.lines) if line.startswith(start)]
        assert numbers, f"no {start!r} in {self.lines}"
        return numbers[0]


class LastRecord:
    """What HEAD's commit, one of the runner's, brought: entries, files, trailers and subject."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.subject, self.trailers = _read_message(toy)
        before = toy.git("cat-file", "blob", "HEAD~1:progress.txt") if _has_before(toy) else ""
        after = parse_ledger(toy.progress.encode())
        count = len(parse_ledger(f"{before}\n".encode()).entries)
        self.before = Ledger(after.header, after.entries[:count])
        self.drafts = [
            Draft(entry, entry.title, list(entry.lines)) for entry in after.entries[count:]
        ]
        changed = toy.git("diff-tree", "-r", "--name-only", "--diff-filter=d", "HEAD~1", "HEAD")
        self._original = {
            path: (toy.root / path).read_bytes()
            for path in changed.splitlines()
            if path != "progress.txt"
        }
        self.files = dict(self._original)
        self.removed: list[str] = []
        self.parent = toy.git("rev-parse", "HEAD~1")
        """The commit that the record is committed on."""
        self._documents: dict[str, Any] = {}

    @property
    def last(self) -> Draft:
        """The entry that the commit was made for."""
        return self.drafts[-1]

    @property
    def seq(self) -> int:
        """Its number."""
        return self.last.entry.seq

    def draft(self, kind: str) -> Draft:
        """Return the newest entry of a kind."""
        return next(draft for draft in reversed(self.drafts) if draft.entry.kind == kind)

    def path(self, word: str) -> str:
        """Return the path of the document that a line names: `receipt`, `attempt-record`, …."""
        for draft in reversed(self.drafts):
            for line in draft.lines:
                if line.startswith(f"{word} sha256:"):
                    return line.split(" ", 2)[2]
        raise AssertionError(f"nothing names a {word}")

    def document(self, word: str) -> Any:
        """Return the document that a line names; what is changed in it is written by `commit`."""
        path = self.path(word)
        if path not in self._documents:
            self._documents[path] = json.loads(self.files[path])
        return self._documents[path]

    @property
    def receipt(self) -> Any:
        """The receipt, that of an attempt record where the attempt was not verified."""
        return self._of_attempt("receipt")

    @property
    def verdict(self) -> Any:
        """The feature's verdict, or the first one of the exit gates."""
        verdict = self._of_attempt("verdict")
        return verdict["verdicts"][0] if "verdicts" in verdict else verdict

    @property
    def gate(self) -> Any:
        """What the verdict says of the gate."""
        return self.verdict["predicate"]["phases/gate/v1"]

    def _of_attempt(self, word: str) -> Any:
        if any(line.startswith("attempt-record ") for line in self.last.lines):
            return self.document("attempt-record")[word]
        return self.document(word)

    def follow_verdict(self) -> None:
        """Write anew the entry's lines and the commit's subject that follow from the verdict."""
        lines = list(_judgement_lines(self.verdict, is_feature=self.last.entry.feature is not None))
        kept = [line for line in self.last.lines if not _follows(line)]
        start = self.last.index("gate ")
        start -= sum(_follows(line) for line in self.last.lines[:start])
        self.last.lines[:] = [*kept[:start], *lines, *kept[start:]]
        passed = len(self.verdict["predicate"]["passedTests"])
        self.subject = re.sub(r"\(\d+ checks\)$", f"({passed} checks)", self.subject)

    def forget(self, word: str) -> None:
        """Commit the bytes of a document as they are in `files`, whatever was changed in it."""
        del self._documents[self.path(word)]

    def replace(self, old: str, new: str) -> None:
        """Replace a text in all documents and trailers."""
        for path, document in self._documents.items():
            self.files[path] = encode(document)
        self._documents.clear()
        self._replace_everywhere(old, new)

    def remove(self, path: str) -> None:
        """Leave a file out of the commit."""
        del self.files[path]
        self.removed.append(path)

    #### put together again

    def commit(self) -> None:
        """Replace HEAD's commit, journal and ref by what was edited; all digests follow."""
        # 1. Files; what named one by its digest names the new one.
        for path, document in self._documents.items():
            self.files[path] = encode(document)
        self._follow_nested_receipt()
        for word in DOCUMENTS:
            for path in self._named(word):
                self._follow(path)

        # 2. Entries.
        ledger = self.before
        for draft in self.drafts:
            entry = draft.entry
            sealed = seal_entry(
                ledger,
                entry.kind,
                tuple(draft.lines),
                time=entry.time,
                phase=entry.phase,
                feature=entry.feature,
                title=draft.title,
            )
            ledger = ledger.with_entry(sealed)
        last = ledger.entries[-1]
        self.trailers |= {"Phases-Entry": f"{last.seq:04d}", "Phases-Head": last.self_hash}

        # 3. The commit.
        toy = self.toy
        for path, data in self.files.items():
            (toy.root / path).parent.mkdir(parents=True, exist_ok=True)
            (toy.root / path).write_bytes(data)
        for path in self.removed:
            (toy.root / path).unlink()
        (toy.root / "progress.txt").write_bytes(ledger.data)
        (toy.root / ".git/phases/journal").write_bytes(ledger.data)
        trailers = "".join(f"{name}: {value}\n" for name, value in self.trailers.items())
        toy.git("reset", "-q", "--soft", self.parent)
        toy.git("add", "-A", "-f", "--", "progress.txt", *self.files, *self.removed)
        toy.git("commit", "-q", "-m", f"{self.subject}\n\n{trailers}")
        toy.git("update-ref", "refs/phases/log", "HEAD")

    def _named(self, word: str) -> list[str]:
        lines = [line for draft in self.drafts for line in draft.lines]
        paths = [line.split(" ", 2)[2] for line in lines if line.startswith(f"{word} sha256:")]
        return [path for path in dict.fromkeys(paths) if path in self.files]

    def _follow(self, path: str) -> None:
        """Have everything that named a file by its digest name its new bytes."""
        if path not in self._original:
            return
        old, new = durable.sha256(self._original[path]), durable.sha256(self.files[path])
        self._replace_everywhere(old, new)

    def _follow_nested_receipt(self) -> None:
        """Have the trailer name the receipt in an attempt record."""
        for path in self._named("attempt-record"):
            try:
                nested = encode(json.loads(self.files[path])["receipt"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            old = encode(json.loads(self._original.get(path, b"{}")).get("receipt"))
            self._replace_everywhere(durable.sha256(old), durable.sha256(nested))

    def _replace_everywhere(self, old: str, new: str) -> None:
        if old == new:
            return
        for path, data in self.files.items():
            self.files[path] = data.replace(old.encode(), new.encode())
        for draft in self.drafts:
            draft.lines[:] = [line.replace(old, new) for line in draft.lines]
        for name, value in self.trailers.items():
            self.trailers[name] = value.replace(old, new)


Place = tuple[str, str | None, int]
"""Kind and feature of the entry whose commit is forged, and which of them."""
Edit = Callable[[LastRecord], object]
"""What an adversary changes."""


def forge(toy: Toy, *edits: Edit) -> LastRecord:
    """Apply the edits to the record that HEAD's commit holds; return it as it was committed."""
    record = LastRecord(toy)
    for edit in edits:
        edit(record)
    record.commit()
    return record


def unchanged(_record: LastRecord) -> None:
    """Change nothing."""


def encode(document: Any) -> bytes:
    """Return a document's bytes, as the runner writes them."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def rewind(toy: Toy, kind: str, feature: str | None = None, *, number: int = -1) -> Entry:
    """Make the commit of an entry the last one, in history, journal and ref; return the entry.

    `number`: which of the entries of this kind that a commit was made for; the newest by default.
    """
    commits = {}
    for line in toy.git("log", "--format=%H %(trailers:key=Phases-Entry,valueonly)").splitlines():
        sha, _, entry = line.partition(" ")
        if entry:
            commits[int(entry)] = sha
    found = [
        entry
        for entry in parse_ledger(toy.progress.encode()).entries
        if entry.kind == kind and entry.seq in commits and feature in (None, entry.feature)
    ][number]
    toy.git("reset", "-q", "--hard", commits[found.seq])
    (toy.root / ".git/phases/journal").write_bytes((toy.root / "progress.txt").read_bytes())
    toy.git("update-ref", "refs/phases/log", "HEAD")
    return found


def audit_report(toy: Toy) -> tuple[int, Any]:
    """Return exit code and report of `audit --json`; it must be a report."""
    result = toy.call("audit", "--json", code=None)
    assert result.stdout.startswith("{"), f"exit {result.code}: {result.stderr}"
    report = json.loads(result.stdout)
    for item in report["findings"]:
        assert not re.fullmatch(r"(.*: )?(None)?", item["message"] or ""), f"no message: {item}"
    return result.code, report


def describe(findings: Sequence[Any]) -> str:
    """Return one line for each finding."""
    fields = ("severity", "code", "entry", "path", "message")
    return "\n".join(" ".join(str(item[name]) for name in fields) for item in findings)


def _read_message(toy: Toy) -> tuple[str, dict[str, str]]:
    subject, *lines = toy.git("log", "-1", "--format=%B").splitlines()
    trailers = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        if colon and name.startswith("Phases-"):
            trailers[name] = value
    return subject, trailers


def _has_before(toy: Toy) -> bool:
    return bool(toy.git("ls-tree", "HEAD~1", "progress.txt"))


def _follows(line: str) -> bool:
    return any(line_format.parse(line) for line_format in FOLLOWING)


def _judgement_lines(verdict: Any, *, is_feature: bool) -> Iterator[str]:
    predicate = verdict["predicate"]
    gate = predicate["phases/gate/v1"]
    predictions = [item["outcome"] for item in predicate.get("phases/predictions/v1", ())]
    if is_feature:
        yield from entries.prediction_lines(predictions)
    required = [item for item in gate["mutants"] if item["kind"] != "content"]
    coverage = gate["measurementCoverage"]
    counts = None
    if coverage:
        levels = [len(coverage[level]) for level in ("recomputed", "bounded", "claimed")]
        counts = (levels[0], levels[1], sum(levels)) if sum(levels) else None
    summary = GateSummary(
        name=predicate["configuration"][0]["name"],
        passed=len(predicate["passedTests"]),
        failed=len(predicate["failedTests"]),
        coverage=counts,
        killed=sum(item["killed"] for item in required),
        mutants=len(required),
        digest_only=tuple(gate["digestOnly"]),
        exempt=tuple(f"{item['files']}: {item['reason']}" for item in gate["exempt"]),
    )
    yield from summary.lines
    messages = gate["messages"]
    yield from entries.failing_lines(
        [(name, messages.get(name, "")) for name in predicate["failedTests"]]
    )
