"""Tables of the self-assessment's report."""

from __future__ import annotations

from lab.present.numbers import quantity
from lab.result import Table
from lab.synthesis.measured import Assessment
from lab.synthesis.questions import LETTERS


def tables(assessment: Assessment) -> tuple[Table, ...]:
    """Return all tables: the questions come first without their answers, so they can be tried."""
    return (
        questions_table(assessment),
        answers_table(assessment),
        candidates_table(assessment),
        experiments_table(assessment),
        predictions_table(assessment),
    )


def questions_table(assessment: Assessment) -> Table:
    """Return the questions without their answers."""
    rows = []
    for number, question in enumerate(assessment.posed_questions, start=1):
        rows.append((number, question.topic, question.text, format_choices(question.choices)))
    return Table("Questions", ("no.", "topic", "question", "choices"), tuple(rows))


def answers_table(assessment: Assessment) -> Table:
    """Return the answers, numbered like the questions."""
    rows = []
    for number, question in enumerate(assessment.posed_questions, start=1):
        rows.append((number, question.answer, question.explanation))
    return Table("Answers, from the numbers of this run", ("no.", "answer", "why"), tuple(rows))


def candidates_table(assessment: Assessment) -> Table:
    """Return the comparisons that could be the minimum interesting experiment."""
    rows = []
    for result in assessment.candidates:
        seeds = "more than can be said" if result.seeds is None else result.seeds
        rows.append(
            (
                result.candidate.name,
                result.candidate.question,
                quantity(result.effect),
                result.answer,
                seeds,
                result.examples,
            )
        )
    columns = (
        "comparison",
        "question",
        "effect",
        "answer",
        f"{assessment.units.repeats} that are enough",
        assessment.units.costs,
    )
    return Table("The minimum interesting experiment: the candidates", columns, tuple(rows))


def experiments_table(assessment: Assessment) -> Table:
    """Return what each experiment asked, expected and found, in its own words."""
    rows = []
    for feature, result in assessment.results.items():
        rows.append((feature, result.question, result.hypothesis, " ".join(result.findings)))
    return Table(
        "Retrospective: what each experiment asked, expected and found",
        ("feature", "question", "hypothesis", "found"),
        tuple(rows),
    )


def predictions_table(assessment: Assessment) -> Table:
    """Return each prediction with its outcome."""
    rows = []
    for score in assessment.scores:
        prediction = score.prediction
        rows.append(
            (prediction.feature, prediction.claim, prediction.source, score.outcome, score.reason)
        )
    return Table(
        "Retrospective: what was predicted, and what held",
        ("feature", "prediction", "because", "outcome", "measured"),
        tuple(rows),
    )


def format_choices(labels: tuple[str, ...]) -> str:
    """Return choices in a line; a question without choices asks for a number."""
    if not labels:
        return "a number"
    lettered = zip(LETTERS, labels, strict=False)
    return " · ".join(f"{letter}) {label}" for letter, label in lettered)
