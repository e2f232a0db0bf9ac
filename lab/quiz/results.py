"""The results that grade a quiz: those that receipts name, and the questions that they decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lab.result import Measurement
from lab.synthesis.questions import PosedQuestion, pose_all, read_questions
from lab.synthesis.tracks import Track
from lab.verified import MissingResultError, UnverifiedError, read_verified

RESULTS = Path("lab/results")
AUDIT = "python -m phases audit"


class QuizError(Exception):
    """The quiz cannot start; the message says why, and `hint` what to type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def prepare(track: Track, root: Path, write: Callable[[str], None]) -> list[PosedQuestion]:
    """Return the questions that the results decide, and write which receipts grade them.

    Raises:
        QuizError: a result is missing, cannot be read, or is not the one of its receipt.
        ContractError: the question file is invalid, or a measurement that it names is missing.
    """
    # 1. The results of every feature that a question names.
    questions, _ = read_questions(track.questions)
    features: set[str] = set()
    for question in questions:
        features.update(name.partition(".")[0] for name in question.all_names)
    evidence: dict[str, Mapping[str, Measurement]] = {}
    receipts = []
    for feature in sorted(features):
        evidence[feature], receipt = read_result(root / RESULTS / feature, track.phase)
        receipts.append(f"{feature} {receipt[:12]}")

    # 2. The questions; those that the numbers leave open are left out.
    posed_questions, open_ids = pose_all(questions, evidence)

    # 3. What the user has to know before the first question.
    write(f"Graded by your own runs, as their receipts name them (sha256): {', '.join(receipts)}.")
    if open_ids:
        write(f"Left out, because these runs cannot tell: {', '.join(open_ids)}.")
    return posed_questions


def read_result(folder: Path, phase: int) -> tuple[Mapping[str, Measurement], str]:
    """Return a feature's measurements and its receipt's SHA-256; `phase` makes its result.

    Raises:
        QuizError: a file is missing or cannot be read, or the receipt names another result.
    """
    try:
        verified = read_verified(folder)
    except MissingResultError as error:
        msg = f"{error}, and nothing else grades this quiz"
        hint = (
            f"python -m phases status, which says what to run (phase {phase} is needed to its end)"
        )
        raise QuizError(msg, hint) from error
    except UnverifiedError as error:
        raise QuizError(str(error), AUDIT) from error
    return verified.measurements, verified.receipt_digest
