"""What a user answered in earlier quizzes: one JSON file of theirs, right and asked by question.

    {"schema": "lab.quiz/1",
     "tracks": {"track-a": {"staircase": {"topic": "…", "asked": 2, "right": 1, "last": "wrong"}}}}

The file is read again before each answer is added and replaced as a whole, so that a quiz that is
killed loses nothing, and a damaged file is never overwritten.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = "lab.quiz/1"
RIGHT, WRONG = "right", "wrong"


class DamagedHistoryError(Exception):
    """The file at `path` can be read and is no history; the message says what is wrong."""

    def __init__(self, path: Path, problem: object) -> None:
        super().__init__(f"{path} is no score of a quiz: {problem}")
        self.path = path


@dataclass(frozen=True)
class Tally:
    """How often a question was asked and answered right; last: RIGHT or WRONG, the last answer."""

    topic: str
    asked: int
    right: int
    last: str


Tallies = dict[str, Tally]  # id of a question -> its tally


@dataclass
class History:
    """One track's tallies, and the file that keeps them.

    problem: why the file is not kept, "" while it is; then the tallies are those of this session.
    """

    path: Path
    track: str
    tallies: Tallies
    problem: str = ""

    def add(self, question: str, topic: str, *, is_right: bool) -> None:
        """Count one answer, in the file too; what prevents that is set as `problem`."""
        tracks = {}
        if not self.problem:
            try:
                # Another quiz may have added to the file since.
                tracks = read_tracks(self.path)
                self.tallies = tracks.get(self.track, {})
            except (OSError, DamagedHistoryError) as error:
                self.problem = _describe(error, self.path)
        self.tallies = _counted(self.tallies, question, topic, is_right=is_right)
        if not self.problem:
            try:
                write_tracks(self.path, tracks | {self.track: self.tallies})
            except OSError as error:
                self.problem = _describe(error, self.path)


def open_history(track: str) -> History:
    """Return a track's history; empty without a file, or where none can be read.

    Raises:
        DamagedHistoryError: the file can be read and is no history.
    """
    try:
        path = default_path()
    except RuntimeError as error:  # a user without a home folder, as in some containers
        return History(Path(), track, {}, problem=f"{error} Set XDG_STATE_HOME")
    try:
        return History(path, track, read_tracks(path).get(track, {}))
    except OSError as error:
        return History(path, track, {}, problem=_describe(error, path))


def default_path() -> Path:
    """Return $XDG_STATE_HOME/llm-learning-lab/quiz.json, by default below ~/.local/state.

    Source: XDG Base Directory Specification, by which a relative path is ignored.

    Raises:
        RuntimeError: there is no home folder.
    """
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():
        folder = Path.home() / ".local" / "state"
    return folder / "llm-learning-lab" / "quiz.json"


def read_tracks(path: Path) -> dict[str, Tallies]:
    """Return track -> tallies; {} where there is no file.

    Raises:
        OSError: the file cannot be read.
        DamagedHistoryError: it can be read and is no history.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise DamagedHistoryError(path, error) from error
    try:
        return _parse_tracks(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedHistoryError(path, f"{type(error).__name__} {error}") from error


def _parse_tracks(document: Any) -> dict[str, Tallies]:
    if document["schema"] != SCHEMA:
        msg = f"got schema {document['schema']!r}; expected {SCHEMA!r}"
        raise ValueError(msg)
    tracks: dict[str, Tallies] = {}
    for track, questions in document["tracks"].items():
        tracks[track] = {name: _parse_tally(name, raw) for name, raw in questions.items()}
    return tracks


def _parse_tally(name: str, raw: Any) -> Tally:
    tally = Tally(**raw)
    counts = (tally.asked, tally.right)
    are_counts = all(type(count) is int for count in counts) and 0 <= tally.right <= tally.asked
    if not are_counts or tally.last not in (RIGHT, WRONG) or not isinstance(tally.topic, str):
        msg = f"{name}: got {raw}"
        raise ValueError(msg)
    return tally


def write_tracks(path: Path, tracks: Mapping[str, Tallies]) -> None:
    """Replace the file as a whole, so that whoever reads it sees the old content or the new one.

    Raises:
        OSError: the folder cannot be made, or not be written to.
    """
    target = path.resolve()  # a link stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    stored = {}
    for track, tallies in tracks.items():
        stored[track] = {name: vars(tally) for name, tally in tallies.items()}
    text = json.dumps({"schema": SCHEMA, "tracks": stored}, ensure_ascii=False, indent=1)
    with tempfile.NamedTemporaryFile(
        "w", dir=target.parent, prefix=".quiz-", delete=False, encoding="utf-8"
    ) as file:
        temporary = Path(file.name)
        try:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink()
            raise


def _counted(tallies: Tallies, question: str, topic: str, *, is_right: bool) -> Tallies:
    """Return the tallies with one more answer."""
    before = tallies.get(question, Tally(topic, asked=0, right=0, last=WRONG))
    last = RIGHT if is_right else WRONG
    after = Tally(topic, before.asked + 1, before.right + is_right, last)
    return tallies | {question: after}


def _describe(error: Exception, path: Path) -> str:
    """Return why the file is not kept, with its path."""
    if isinstance(error, OSError):
        return f"{path}: {error.strerror or error}"
    return str(error)
