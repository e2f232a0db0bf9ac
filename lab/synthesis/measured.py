"""What the self-assessment computes from the results of a track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.result import Result
from lab.synthesis.minimum_experiment import CandidateResult, find_minimum
from lab.synthesis.questions import PosedQuestion, QuizQuestion
from lab.synthesis.retrospect import PredictionScore
from lab.synthesis.tracks import Units


@dataclass(frozen=True)
class Assessment:
    """Questions, predictions and candidates of a track, decided by its results.

    results: feature -> its result; open_questions: ids of the questions that its numbers do not
    decide; candidates: for the minimum interesting experiment, in the file's order; units: theirs.
    """

    results: Mapping[str, Result]
    questions: tuple[QuizQuestion, ...]
    posed_questions: tuple[PosedQuestion, ...]
    open_questions: tuple[str, ...]
    candidates: tuple[CandidateResult, ...]
    scores: tuple[PredictionScore, ...]
    units: Units

    @property
    def minimum(self) -> CandidateResult:
        """The minimum interesting experiment."""
        return find_minimum(self.candidates)
