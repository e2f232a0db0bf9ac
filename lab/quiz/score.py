"""The score of this quiz and of all, and the order that follows from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab.present.numbers import count, number
from lab.quiz.asking import Grade, GradedQuestion
from lab.quiz.history import RIGHT, History, Tallies, Tally
from lab.synthesis.questions import PosedQuestion


def missed_first(posed_questions: Sequence[PosedQuestion], tallies: Tallies) -> list[PosedQuestion]:
    """Return the questions with the topics first that were not right the last time.

    Within such a topic the questions come first that were not right; all else keeps its order.
    """
    topics = list(dict.fromkeys(question.topic for question in posed_questions))
    missed = missed_topics(posed_questions, tallies)

    def key(question: PosedQuestion) -> tuple[bool, int, bool]:
        was_right = not _was_missed(question, tallies)
        return question.topic not in missed, topics.index(question.topic), was_right

    return sorted(posed_questions, key=key)


def missed_topics(posed_questions: Sequence[PosedQuestion], tallies: Tallies) -> list[str]:
    """Return the topics with a question that was not answered right the last time, in order."""
    topics = [question.topic for question in posed_questions if _was_missed(question, tallies)]
    return list(dict.fromkeys(topics))


def _was_missed(question: PosedQuestion, tallies: Tallies) -> bool:
    return question.id in tallies and tallies[question.id].last != RIGHT


def history_lines(posed_questions: Sequence[PosedQuestion], history: History) -> list[str]:
    """Return what a user is told about earlier quizzes before the first question."""
    lines = []
    asked, right = _totals(history.tallies.values())
    if asked:
        lines.append(f"Earlier quizzes: {right} of {count(asked, 'answer')} right.")
    topics = missed_topics(posed_questions, history.tallies)
    if topics:
        lines.append(
            f"First come the topics that were not right the last time: {'; '.join(topics)}."
        )
    if history.problem:
        lines.append(f"This quiz is not counted: {history.problem}.")
    return lines


def _totals(tallies: Iterable[Tally]) -> tuple[int, int]:
    """Return how often questions were asked, and how often answered right."""
    counts = [(tally.asked, tally.right) for tally in tallies]
    return sum(asked for asked, _ in counts), sum(right for _, right in counts)


def score_lines(
    graded_questions: Sequence[GradedQuestion], total: int, history: History
) -> list[str]:
    """Return the lines that end a quiz of `total` questions.

    The score, what blind guessing gets, the topics to read again, and where the score is kept.
    """
    # 1. The score, and what letters guessed evenly would have got.
    right = sum(item.grade is Grade.RIGHT for item in graded_questions)
    summary = f"\n{right} of {count(len(graded_questions), 'question')} right"
    if len(graded_questions) < total:
        summary += f", {total - len(graded_questions)} not asked"
    if graded_questions:
        choice_counts = [len(item.question.choices) for item in graded_questions]
        blind_score = sum(1 / n for n in choice_counts if n)
        summary += f"; guessing blindly gets {number(blind_score, 2)}"
    lines = [f"{summary}."]

    # 2. Topics with a question that was not answered right, in the order of asking.
    by_topic: dict[str, list[GradedQuestion]] = {}
    for item in graded_questions:
        by_topic.setdefault(item.question.topic, []).append(item)
    for topic, items in by_topic.items():
        right = sum(item.grade is Grade.RIGHT for item in items)
        if right == len(items):
            continue
        score = f"{right} of {len(items)}"
        of_topic = [tally for tally in history.tallies.values() if tally.topic == topic]
        asked, right = _totals(of_topic)
        if asked > len(items):
            score += f"; {right} of {asked} in all quizzes"
        lines.append(f"  to look at again: {topic} ({score})")

    # 3. Where it is kept.
    if graded_questions and history.problem:
        lines.append(f"The score is not kept: {history.problem}.")
    elif graded_questions:
        has_topics = len(lines) > 1
        next_time = "; these topics come first the next time" if has_topics else ""
        lines.append(f"Kept in {history.path}{next_time}.")
    return lines
