"""From what the self-assessment computed to its numbers, tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lab import present
from lab.contract import Measurement, Table
from lab.present.numbers import count, number, quantity
from lab.synthesis import evidence
from lab.synthesis.questions import LETTERS
from lab.synthesis.retrospect import OUTCOMES

if TYPE_CHECKING:
    from lab.synthesis.experiment import Assessed
    from lab.synthesis.retrospect import Scored

exact = Measurement.of_exact


def measurements(assessed: Assessed) -> dict[str, Measurement]:
    """All measurements.

    The effect of the minimum interesting experiment is that of the feature that measured it.
    """
    posed, scored, minimum = assessed.posed, assessed.scored, assessed.minimum
    used = {name for question in assessed.asked for name in question.uses}
    guessed = sum(1 / len(item.choices) for item in posed if item.choices) / max(len(posed), 1)
    outcomes = {name: sum(item.outcome == name for item in scored) for name in OUTCOMES}
    return {
        "questions": exact(len(posed), "questions"),
        "questions_left_out": exact(len(assessed.left_out), "questions"),
        "topics": exact(len({item.topic for item in posed}), "topics"),
        "numbers_used": exact(len(used), "measurements"),
        "blind_score": exact(guessed, ""),
        "predictions": exact(len(scored), "predictions"),
        "predictions_held": exact(outcomes["HELD"], "predictions"),
        "predictions_missed": exact(outcomes["MISSED"], "predictions"),
        "predictions_inconclusive": exact(outcomes["INCONCLUSIVE"], "predictions"),
        "held_share": exact(outcomes["HELD"] / len(scored) if scored else None, ""),
        "candidates": exact(len(assessed.sized), "comparisons"),
        "candidates_decided": exact(sum(item.decided for item in assessed.sized), "comparisons"),
        "minimum_experiment": exact(minimum.candidate.name),
        "minimum_experiment_feature": exact(minimum.candidate.feature),
        "minimum_experiment_answer": exact(minimum.verdict),
        "minimum_experiment_seeds": exact(minimum.seeds, "seeds"),
        "minimum_experiment_examples": exact(minimum.examples, "training examples"),
        "minimum_experiment_effect": minimum.effect,
    }


def tables(assessed: Assessed) -> tuple[Table, ...]:
    """Questions without their answers first, so that they can be tried.

    Then answers, experiments, predictions.
    """
    listed = list(enumerate(assessed.posed, 1))
    return (
        Table(
            "Questions",
            ("no.", "topic", "question", "choices"),
            tuple((place, item.topic, item.text, choices(item.choices)) for place, item in listed),
        ),
        Table(
            "Answers, from the numbers of this run",
            ("no.", "answer", "why"),
            tuple((place, item.answer, item.explanation) for place, item in listed),
        ),
        Table(
            "The minimum interesting experiment: the candidates",
            (
                "comparison",
                "question",
                "effect",
                "answer",
                "seeds that are enough",
                "training examples",
            ),
            tuple(
                (
                    s.candidate.name,
                    s.candidate.question,
                    quantity(s.effect),
                    s.verdict,
                    _or_none(s.seeds),
                    s.examples,
                )
                for s in assessed.sized
            ),
        ),
        Table(
            "Retrospective: what each experiment asked, expected and found",
            ("feature", "question", "hypothesis", "found"),
            tuple(
                (f, r.question, r.hypothesis, " ".join(r.findings))
                for f, r in assessed.results.items()
            ),
        ),
        Table(
            "Retrospective: what was predicted, and what held",
            ("feature", "prediction", "because", "outcome", "measured"),
            tuple(
                (s.claim.feature, s.claim.claim, s.claim.source, s.outcome, s.met)
                for s in assessed.scored
            ),
        ),
    )


def choices(labels: tuple[str, ...]) -> str:
    """Write choices in a line; a question without choices wants a number."""
    return " · ".join(f"{LETTERS[i]}) {label}" for i, label in enumerate(labels)) or "a number"


def _or_none(seeds: int | None) -> int | str:
    return "more than can be said" if seeds is None else seeds


def findings(
    assessed: Assessed, numbers: Mapping[str, Measurement], sources: Mapping[str, Mapping[str, str]]
) -> tuple[str, ...]:
    """Give the sentences the numbers support: smallest experiment, balance, then each miss."""
    value: dict[str, Any] = {name: m.value for name, m in numbers.items()}
    return (
        _smallest(assessed, sources),
        f"Of {count(value['predictions'], 'prediction')} registered before the track, "
        f"{value['predictions_held']} held, {value['predictions_missed']} missed and "
        f"{value['predictions_inconclusive']} could not be decided by these runs.",
        *(
            f"Missed, and therefore learnt: {_told(item)}"
            for item in assessed.scored
            if item.outcome == "MISSED"
        ),
        *(
            f"Still open: {_told(item)}"
            for item in assessed.scored
            if item.outcome == "INCONCLUSIVE"
        ),
        f"{count(value['questions'], 'question')} on {count(value['topics'], 'topic')} are decided "
        f"by {count(value['numbers_used'], 'measurement')} of this track; guessing blindly gets "
        f"{number(100 * value['blind_score'], 2)} % of them right. {_left_out(assessed.left_out)}",
    )


def _told(item: Scored) -> str:
    return f"{item.claim.feature} claimed that {item.claim.claim}; {item.met}."


def _left_out(names: tuple[str, ...]) -> str:
    if not names:
        return "The numbers leave none of them open."
    return f"The numbers of this run leave open, and so nobody is asked: {', '.join(names)}."


def _smallest(assessed: Assessed, sources: Mapping[str, Mapping[str, str]]) -> str:
    minimum = assessed.minimum
    feature = minimum.candidate.feature
    effect = (
        f"{quantity(minimum.effect)}, {minimum.candidate.of}, receipt {sources[feature]['receipt']}"
    )
    if not minimum.decided:
        return (
            f"None of {count(len(assessed.sized), 'comparison')} was decided by these runs. "
            f"Nearest to a minimum interesting experiment comes {minimum.candidate.name!r}: "
            f"{minimum.candidate.question} ({effect}.)"
        )
    return (
        f"The minimum interesting experiment is {minimum.candidate.name!r}: "
        f"{minimum.candidate.question} With the spread between seeds that was measured, "
        f"{minimum.seeds} seeds or {number(minimum.examples)} training examples would have been "
        f"enough. Answer: {minimum.verdict} ({effect})."
    )


def figures(assessed: Assessed) -> list[present.Figure]:
    """All figures of the report."""
    return [predictions_figure(assessed), candidates_figure(assessed)]


def predictions_figure(assessed: Assessed) -> present.Figure:
    """How the predictions of each feature fared."""
    features = list(assessed.results)
    pairs = [(item.claim.feature, item.outcome) for item in assessed.scored]
    counts = {name: [pairs.count((feature, name)) for feature in features] for name in OUTCOMES}
    told = ", ".join(f"{sum(of)} {name.lower()}" for name, of in counts.items())
    return present.Figure(
        name="predictions",
        title="What was predicted before the track, and what held",
        caption=f"{count(len(pairs), 'prediction')}: {told}. A miss is a finding.",
        x_label="feature",
        y_label="predictions",
        series=tuple(
            present.Series(name.lower(), features, of, kind="bar") for name, of in counts.items()
        ),
    )


def candidates_figure(assessed: Assessed) -> present.Figure:
    """The effect of each comparison with its interval: what leaves out 0 is decided."""
    shown = [item for item in assessed.sized if evidence.is_number(item.effect.value)]
    values: list[float] = [item.effect.value for item in shown]  # type: ignore[misc]
    ends = [
        evidence.interval(item.effect) or (value, value)
        for item, value in zip(shown, values, strict=True)
    ]
    known = sum(evidence.interval(item.effect) is not None for item in shown)
    decided = sum(item.decided for item in shown)
    return present.Figure(
        name="candidates",
        title="Comparisons of two settings, one difference per seed",
        caption=(
            f"Mean paired difference with its 95 % interval over seeds, which {known} of "
            f"{len(shown)} have; {decided} leave out 0. The fewest runs are needed by "
            f"{assessed.minimum.candidate.name!r}."
        ),
        x_label="comparison",
        y_label="difference of loss (nats/token)",
        series=(
            present.Series(
                "mean over seeds",
                [item.candidate.name for item in shown],
                values,
                band=([low for low, _ in ends], [high for _, high in ends]),
                kind="bar",
            ),
        ),
    )
