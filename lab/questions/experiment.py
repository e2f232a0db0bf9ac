"""FEAT-003, questions log: what does this lab ask, in which experiment, and what is answered?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import Context, Inputs, Measurement, Result, Table, environment, main
from lab.questions.question_log import STATUSES, Question, parse, problems

QUESTION = (
    "Does every experiment of the plan ask a question, and is every answer backed by a receipt?"
)
HYPOTHESIS = (
    "Yes: each feature of the plan is tagged by at least one question, and no question is marked "
    "ANSWERED without a feature whose receipt exists."
)
METHOD = (
    "The log is copied byte by byte and parsed: one heading of level 3 per question, then its "
    "fields. Ids, statuses, tags and references are checked; an answer counts only if the "
    "feature that it names was given to this run with its receipt. Whatever is wrong is "
    "listed, not repaired."
)


def run(ctx: Context) -> None:
    """Copy, parse, check and index the log in the input `questions`."""
    source = find(ctx.inputs.path("questions"))
    text = source.read_bytes()
    log = parse(text.decode())
    features = plan(ctx.config["first_feature"], ctx.config["last_feature"])
    wrong = list(problems(log, features, receipts(ctx.inputs), ctx.config["least_questions"]))
    (ctx.out / "QUESTIONS.md").write_bytes(text)
    (ctx.out / "index.json").write_text(
        json.dumps(index(log, features), indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    found = totals(log, features, wrong)
    asked = {feature: sum(feature in q.experiments for q in log) for feature in features}
    result = Result(
        "lab.questions.experiment",
        QUESTION,
        HYPOTHESIS,
        METHOD,
        found,
        tables=tables(log, wrong),
        findings=findings(found),
        environment=environment(ctx),
    )
    present.write(ctx.out, result, [figure(asked)])
    ctx.progress(1, 1, f"{len(log)} questions")


def find(path: Path) -> Path:
    """Give the log: the input is the file itself or the folder that holds QUESTIONS.md."""
    return path / "QUESTIONS.md" if path.is_dir() else path


def plan(first: int, last: int) -> tuple[str, ...]:
    """Give the ids of the features of the whole plan: FEAT-001 … FEAT-020."""
    return tuple(f"FEAT-{number:03d}" for number in range(first, last + 1))


def receipts(inputs: Inputs) -> set[str]:
    """Give the features that were given to this run together with the digest of their receipt."""
    return {
        name
        for name, entry in inputs.entries.items()
        if entry["kind"] == "feature" and entry.get("receipt")
    }


def index(log: Sequence[Question], features: Sequence[str]) -> dict[str, Any]:
    """Give the log by status and by experiment, and the questions themselves."""
    return {
        "by_status": {status: [q.id for q in log if q.status == status] for status in STATUSES},
        "by_experiment": {
            feature: [q.id for q in log if feature in q.experiments] for feature in features
        },
        "questions": [{**asdict(q), "fields": dict(q.fields)} for q in log],
    }


def totals(
    log: Sequence[Question], features: Sequence[str], wrong: Sequence[str]
) -> dict[str, Measurement]:
    """Give the counts."""
    tags = [tag for question in log for tag in question.experiments]
    counts = {
        "questions": len(log),
        **{status.lower(): sum(q.status == status for q in log) for status in STATUSES},
        "tags": len(tags),
        "experiments": len(features),
        "experiments_with_a_question": len(set(tags) & set(features)),
        "problems": len(wrong),
    }
    return {name: Measurement.of_exact(value) for name, value in counts.items()}


def tables(log: Sequence[Question], wrong: Sequence[str]) -> tuple[Table, ...]:
    """Give the questions in a line each, and what is wrong with the log, if anything."""
    rows = tuple((q.id, q.text, q.status, ", ".join(q.experiments)) for q in log)
    listed = Table("Questions", ("id", "question", "status", "experiments"), rows)
    return (
        (listed, Table("Problems", ("problem",), tuple((p,) for p in wrong)))
        if wrong
        else (listed,)
    )


def findings(found: dict[str, Measurement]) -> tuple[str, ...]:
    """Give the sentences that the numbers support."""
    value: dict[str, Any] = {name: m.value for name, m in found.items()}
    without = value["experiments"] - value["experiments_with_a_question"]
    return (
        f"{value['questions']} questions: {value['open']} open, {value['exploring']} being "
        f"explored, {value['answered']} answered, {value['superseded']} superseded.",
        f"{'Every' if without == 0 else 'NOT every'} experiment of the plan asks one "
        f"({value['experiments_with_a_question']} of {value['experiments']}); a question is "
        f"tagged by {present.number(value['tags'] / max(value['questions'], 1), 2)} "
        "experiments on average.",
        f"The log {'keeps' if value['problems'] == 0 else 'BREAKS'} its rules: "
        f"{present.count(value['problems'], 'problem')}.",
    )


def figure(asked: dict[str, int]) -> present.Figure:
    """Show how many questions each experiment is asked."""
    most = max(asked, key=asked.__getitem__)
    return present.Figure(
        name="questions_per_experiment",
        title="Questions per experiment",
        caption=f"{most} is asked the most, {asked[most]}; the least is {min(asked.values())}.",
        x_label="experiment",
        y_label="questions",
        series=(
            present.Series(
                "questions",
                [name.removeprefix("FEAT-") for name in asked],
                list(asked.values()),
                kind="bar",
            ),
        ),
    )


if __name__ == "__main__":
    main(run)
