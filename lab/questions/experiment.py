"""FEAT-003, questions log: what does this lab ask, in which experiment, and what is answered?

Path: docs/QUESTIONS.md -> `measure` (questions and problems) -> `store` (copy and index) ->
`summarise` (the numbers) -> findings, tables and figure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import Context, Experiment, Inputs, Measurement, Outcome, Table, main
from lab.questions.question_log import STATUSES, LoggedQuestion, find_problems, parse

EXPERIMENT = Experiment(
    title="Questions log",
    question=(
        "Does every experiment of the plan ask a question, and is every answer backed by a receipt?"
    ),
    hypothesis=(
        "Yes: each feature of the plan is tagged by at least one question, and no question is "
        "marked ANSWERED without a feature whose receipt exists."
    ),
    method=(
        "The log is copied byte by byte and parsed: one heading of level 3 per question, then its "
        "fields. Ids, statuses, tags and references are checked; an answer counts only if the "
        "feature that it names was given to this run with its receipt. Whatever is wrong is "
        "listed, not repaired."
    ),
    headline=("problems", "questions", "open", "answered", "experiments_with_a_question"),
)


@dataclass(frozen=True)
class LogObservations:
    """The log's bytes, its questions, the features of the plan, and what is wrong."""

    source: bytes
    log: tuple[LoggedQuestion, ...]
    features: tuple[str, ...]
    problems: list[str]


def run(ctx: Context) -> Outcome:
    """Copy, parse, check and index the log in the input `questions`."""
    observations = measure(ctx)
    store(ctx.out, observations)
    measurements = summarise(observations.log, observations.features, observations.problems)
    ctx.progress(1, 1, f"{len(observations.log)} questions")
    return Outcome(
        measurements,
        tables=tables(observations.log, observations.problems),
        findings=findings(measurements),
        figures=[figure(observations.log, observations.features)],
    )


def measure(ctx: Context) -> LogObservations:
    """Read the log and check it."""
    source = find_log(ctx.inputs.path("questions")).read_bytes()
    log = parse(source.decode())
    features = plan_features(ctx.config["first_feature"], ctx.config["last_feature"])
    problems = find_problems(log, features, receipts(ctx.inputs), ctx.config["least_questions"])
    return LogObservations(source, log, features, list(problems))


def find_log(path: Path) -> Path:
    """Return the log: the input is the file itself or the folder with QUESTIONS.md."""
    return path / "QUESTIONS.md" if path.is_dir() else path


def plan_features(first: int, last: int) -> tuple[str, ...]:
    """Return the ids of the features of the whole plan: FEAT-001 … FEAT-021."""
    return tuple(f"FEAT-{number:03d}" for number in range(first, last + 1))


def receipts(inputs: Inputs) -> set[str]:
    """Return the features that were given to this run together with their receipt's digest."""
    features = set()
    for name, entry in inputs.entries.items():
        if entry["kind"] == "feature" and entry.get("receipt"):
            features.add(name)
    return features


def store(out: Path, observations: LogObservations) -> None:
    """Write the copy of the log, and its index."""
    index = index_of(observations.log, observations.features)
    (out / "QUESTIONS.md").write_bytes(observations.source)
    (out / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", "utf-8")


def index_of(log: Sequence[LoggedQuestion], features: Sequence[str]) -> dict[str, Any]:
    """Return the ids by status and by experiment, and the questions themselves."""
    by_status: dict[str, list[str]] = {}
    for status in STATUSES:
        by_status[status] = [question.id for question in log if question.status == status]
    by_experiment: dict[str, list[str]] = {}
    for feature in features:
        by_experiment[feature] = [q.id for q in log if feature in q.experiments]
    questions = [asdict(question) | {"fields": dict(question.fields)} for question in log]
    return {"by_status": by_status, "by_experiment": by_experiment, "questions": questions}


def summarise(
    log: Sequence[LoggedQuestion], features: Sequence[str], problems: Sequence[str]
) -> dict[str, Measurement]:
    """Return the counts."""
    counts = {"questions": len(log)}
    for status in STATUSES:
        counts[status.lower()] = sum(question.status == status for question in log)
    tags: list[str] = []
    for question in log:
        tags += question.experiments
    counts["tags"] = len(tags)
    counts["experiments"] = len(features)
    counts["experiments_with_a_question"] = len(set(tags) & set(features))
    counts["problems"] = len(problems)
    return {name: Measurement.of_exact(count) for name, count in counts.items()}


def tables(log: Sequence[LoggedQuestion], problems: Sequence[str]) -> list[Table]:
    """Return the questions, a line each, and the problems, if there are any."""
    rows = tuple((q.id, q.text, q.status, ", ".join(q.experiments)) for q in log)
    questions = Table("Questions", ("id", "question", "status", "experiments"), rows)
    if not problems:
        return [questions]
    return [questions, Table("Problems", ("problem",), tuple((text,) for text in problems))]


def findings(measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return the sentences that the numbers support."""
    counts: dict[str, Any] = {name: m.value for name, m in measurements.items()}
    covered = counts["experiments_with_a_question"]
    every = "Every" if covered == counts["experiments"] else "NOT every"
    tags_per_question = counts["tags"] / max(counts["questions"], 1)
    verdict = "follows" if counts["problems"] == 0 else "BREAKS"
    return (
        f"{counts['questions']} questions: {counts['open']} open, {counts['exploring']} being "
        f"explored, {counts['answered']} answered, {counts['superseded']} superseded.",
        f"{every} experiment of the plan asks one ({covered} of {counts['experiments']}); a "
        f"question is tagged by {present.number(tags_per_question, 2)} experiments on average.",
        f"The log {verdict} its rules: {present.count(counts['problems'], 'problem')}.",
    )


def figure(log: Sequence[LoggedQuestion], features: Sequence[str]) -> present.Figure:
    """Show how many questions each experiment asks."""
    questions = {feature: sum(feature in q.experiments for q in log) for feature in features}
    most = max(questions, key=questions.__getitem__)
    return present.Figure(
        name="questions_per_experiment",
        title="Questions per experiment",
        caption=(
            f"{most} asks the most questions, {questions[most]}; the least is "
            f"{min(questions.values())}."
        ),
        x_label="experiment",
        y_label="questions",
        series=(
            present.Series(
                "questions",
                [feature.removeprefix("FEAT-") for feature in questions],
                list(questions.values()),
                kind="bar",
            ),
        ),
    )


if __name__ == "__main__":
    main(EXPERIMENT, run)
