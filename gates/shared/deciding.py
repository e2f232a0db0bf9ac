"""Deciding a track's questions, predictions and comparisons again, for the gates that judge them.

Works on parsed JSON: `results` is feature -> name -> measurement as result.json has it. Independent
of the lab's code; the rules are those of docs/prd-format.md (predictions) and of the fields `rule`,
`of`, `bin_edges` and `options` in questions.json.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from gates.shared.documents import shows

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]

RULES = {"largest", "smallest", "bracket", "interval", "equals", "number"}
TOLERANCE = 0.1  # of a number: what an answer may be off, where its interval is narrower
MAX_SEEDS = 1000
SHARED_NAMES = (
    "questions",
    "questions_left_out",
    "topics",
    "numbers_used",
    "blind_score",
    "predictions",
    "predictions_held",
    "predictions_missed",
    "predictions_inconclusive",
    "held_share",
    "candidates",
    "candidates_decided",
    "minimum_experiment",
    "minimum_experiment_feature",
    "minimum_experiment_answer",
)
COMPUTED = (*SHARED_NAMES, "minimum_experiment_seeds", "minimum_experiment_examples")
EFFECT = "minimum_experiment_effect"  # passed on from the feature that measured it
FIELDS = ("id", "claim", "measurement", "comparator", "value")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a finite number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def calculate(results: Results, expression: str) -> dict[str, Any]:
    """Return {"value", "stderr", "n", "exact", "values"} of `A`, `A - B` or `A / B`."""
    words = expression.split(" ")
    if len(words) == 1:
        return dict(_find_measurement(results, expression))
    assert len(words) == 3, f"{expression!r} is no FEATURE.name and no operation on two of them"
    first = _find_measurement(results, words[0])
    second = _find_measurement(results, words[2])
    a, b = first["value"], second["value"]
    if not is_number(a) or not is_number(b):
        return {"value": None}
    if words[1] == "/":
        return {"value": a / b if b else None}
    assert words[1] == "-", f"{expression!r}: {words[1]!r} is neither - nor /"
    # Samples are one value per seed: as many values are paired.
    values, others = first.get("values") or [], second.get("values") or []
    if len(values) == len(others) > 1:
        return sample([x - y for x, y in zip(values, others, strict=True)])
    return {"value": a - b}


def _find_measurement(results: Results, name: str) -> Mapping[str, Any]:
    feature, _, key = name.partition(".")
    assert key in results.get(feature, {}), f"{name} was not measured"
    return results[feature][key]


def sample(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard error of at least two repeated values."""
    return {
        "value": statistics.fmean(values),
        "stderr": statistics.stdev(values) / math.sqrt(len(values)),
        "n": len(values),
        "values": list(values),
    }


def confidence_interval(
    measurement: Mapping[str, Any] | None, *, as_sample: bool = False
) -> tuple[float, float] | None:
    """Return the 95 % interval value ± t(0.975, n - 1) · stderr; None where it is not known.

    An exact value is both ends of its interval, unless it is read `as_sample`.
    """
    if measurement is None or not is_number(measurement.get("value")):
        return None
    value = measurement["value"]
    if measurement.get("exact") and not as_sample:
        return value, value
    stderr, n = measurement.get("stderr"), measurement.get("n")
    if not is_number(stderr) or not isinstance(n, int) or n < 2:
        return None
    half = t_quantile(n - 1) * float(stderr)
    return value - half, value + half


def t_quantile(df: int) -> float:
    """Return the 0.975 quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


#### questions


def decide_question(question: Mapping[str, Any], results: Results) -> dict[str, Any] | None:
    """Return {"option"} (index in the question's own options) or {"value", "tolerance"}.

    None where the numbers leave it open.
    """
    rule = question["rule"]
    assert rule in RULES, f"{question['id']}: rule {rule!r}"
    if rule in ("largest", "smallest"):
        return _extreme_option(question, results)
    operand = calculate(results, question["of"])
    value = operand["value"]
    if rule == "equals":
        return _equal_option(question, value)
    if not is_number(value):
        return None

    interval = confidence_interval(operand)
    if rule == "number":
        half = 0.0
        if interval is not None:
            half = (interval[1] - interval[0]) / 2
        return {"value": value, "tolerance": max(half, TOLERANCE * abs(value))}

    # bracket: the bin of the value; interval: the one bin of both ends, else "cannot tell"
    edges = question["bin_edges"]
    points = (value,) if rule == "bracket" else interval or ()
    bins = {_bin_of(point, edges) for point in points}
    if len(bins) != 1:
        return {"option": len(edges) + 1}
    return {"option": bins.pop()}


def _extreme_option(question: Mapping[str, Any], results: Results) -> dict[str, Any] | None:
    values = [calculate(results, option["of"])["value"] for option in question["options"]]
    if not all(map(is_number, values)):
        return None
    ordered = sorted(values)
    best = ordered[-1] if question["rule"] == "largest" else ordered[0]
    if values.count(best) != 1:
        return None
    return {"option": values.index(best)}


def _equal_option(question: Mapping[str, Any], value: Any) -> dict[str, Any] | None:
    matches = []
    for index, option in enumerate(question["options"]):
        if option["equal"] == value and type(option["equal"]) is type(value):
            matches.append(index)
    if len(matches) != 1:
        return None
    return {"option": matches[0]}


def _bin_of(value: float, edges: Sequence[float]) -> int:
    """Return the index of a value's bin; an edge belongs to the bin above it."""
    return sum(value >= edge for edge in edges)


def rule_names(question: Mapping[str, Any]) -> set[str]:
    """Return FEATURE.name of what a question's rule reads."""
    expressions = [question["of"] or ""]
    expressions += [option["of"] or "" for option in question["options"]]
    return {word for word in " ".join(expressions).split(" ") if "." in word}


def all_names(question: Mapping[str, Any]) -> set[str]:
    """Return FEATURE.name of what a question's rule or one of its texts reads."""
    texts = [question["ask"], question["why"]]
    for option in question["options"]:
        texts += [option["label"], option["why"]]
    names = rule_names(question)
    for text in texts:
        names.update(piece.split("}")[0] for piece in text.split("{")[1:])
    return names


def find_misstatements(document: Mapping[str, Any], results: Results) -> Iterator[str]:
    """Yield a sentence for each deciding number that an explanation does not state as measured."""
    explanations = {item["id"]: item["explanation"] for item in document["posed_questions"]}
    for question in document["questions"]:
        identifier = question["id"]
        if identifier not in explanations:
            continue
        for name in sorted(rule_names(question)):
            measurement = _find_measurement(results, name)
            _, separator, text = explanations[identifier].partition(f"{name} = ")
            if not separator:
                yield f"{identifier} does not state {name}"
            elif not shows(text, measurement["value"], measurement.get("unit", "")):
                value = measurement["value"]
                yield f"{identifier}: {name} is {value}, stated as {text[:20]!r}"


#### predictions


def score_prediction(
    prediction: Mapping[str, Any], measurements: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return HELD, MISSED or INCONCLUSIVE."""
    if prediction.get("margin") is not None:
        lead = confidence_interval(measurements.get(prediction["margin"]), as_sample=True)
        if lead is None or lead[0] <= 0:
            return "INCONCLUSIVE"
    measurement = measurements.get(prediction["measurement"])
    if measurement is None:
        return "INCONCLUSIVE"
    if prediction["comparator"] in ("==", "!="):
        return _score_equality(prediction, measurement)
    return _score_interval(prediction, measurement)


def _score_equality(prediction: Mapping[str, Any], measurement: Mapping[str, Any]) -> str:
    """Score `==` and `!=`, which only an exact value decides."""
    if not measurement.get("exact") or measurement["value"] is None:
        return "INCONCLUSIVE"
    is_equal = _is_equal(measurement["value"], prediction["value"])
    if is_equal == (prediction["comparator"] == "=="):
        return "HELD"
    return "MISSED"


def _score_interval(prediction: Mapping[str, Any], measurement: Mapping[str, Any]) -> str:
    """Score an order or `within`: HELD or MISSED if the whole interval agrees."""
    interval = confidence_interval(measurement)
    if interval is None:
        return "INCONCLUSIVE"
    low, high = interval
    limit = prediction["value"]
    if prediction["comparator"] == "within":
        is_inside = limit[0] <= low and high <= limit[1]
        touches = not (high < limit[0] or low > limit[1])
        verdicts = {is_inside, touches}
    else:
        verdicts = {_is_ordered(end, prediction["comparator"], limit) for end in interval}
    if len(verdicts) == 2:
        return "INCONCLUSIVE"
    return "HELD" if verdicts.pop() else "MISSED"


def _is_ordered(value: float, comparator: str, limit: float) -> bool:
    is_below, is_equal = value < limit, value == limit
    verdicts = {
        "<": is_below,
        "<=": is_below or is_equal,
        ">": not is_below and not is_equal,
        ">=": not is_below,
    }
    return verdicts[comparator]


def _is_equal(actual: Any, expected: Any) -> bool:
    if not is_number(actual) or not is_number(expected):
        return type(actual) is type(expected) and bool(actual == expected)
    if isinstance(actual, int) and isinstance(expected, int):
        return actual == expected
    return math.isclose(actual, expected, rel_tol=1e-9)


#### the minimum interesting experiment


@dataclass(frozen=True)
class Units:
    """What the comparisons of a track are repeated over, and what is counted of them."""

    repeats: str = "seeds"
    costs: str = "training examples"

    @property
    def names(self) -> tuple[str, str]:
        """The measurements of how many repeats are enough, and of what these cost."""
        words = (self.repeats, self.costs.split()[-1])
        return f"minimum_experiment_{words[0]}", f"minimum_experiment_{words[1]}"

    @property
    def computed(self) -> tuple[str, ...]:
        """Every measurement of the self-assessment but the effect."""
        return (*SHARED_NAMES, *self.names)


OVER_SEEDS, OVER_TEXTS = Units(), Units("texts", "tokens")


@dataclass(frozen=True)
class CandidateResult:
    """A candidate's effect, whether it is decided, and the fewest seeds and examples for that.

    Where nothing was trained, seeds are texts and examples tokens (`Units`).
    """

    effect: dict[str, Any]
    decided: bool
    seeds: int | None
    examples: int | None

    @property
    def multiple(self) -> float:
        """The effect in multiples of its standard error."""
        size = abs(self.effect["value"] or 0.0)
        return float(size / (self.effect.get("stderr") or 1e-300))

    def answer(self, candidate: Mapping[str, Any]) -> str:
        """Return the answer to the candidate's question, in words."""
        if not self.decided:
            return "these runs cannot tell"
        if self.effect["value"] > 0:
            return str(candidate["if_positive"])
        return str(candidate["if_negative"])


def evaluate_candidate(candidate: Mapping[str, Any], results: Results) -> CandidateResult:
    """Return whether a candidate is decided, and the fewest seeds and examples for that."""
    effect = calculate(results, candidate["of"])
    interval = confidence_interval(effect, as_sample=True)
    if interval is None:
        return CandidateResult(effect, decided=False, seeds=None, examples=None)
    deviation = float(effect["stderr"]) * math.sqrt(effect["n"])
    seeds, examples = None, None
    for k in range(2, MAX_SEEDS + 1):
        if t_quantile(k - 1) * deviation / math.sqrt(k) < abs(effect["value"]):
            seeds = k
            examples = candidate["once"] + seeds * candidate["examples"]
            break
    decided = interval[0] > 0 or interval[1] < 0
    return CandidateResult(effect, decided=decided, seeds=seeds, examples=examples)


def find_minimum(candidate_results: Sequence[CandidateResult]) -> int:
    """Return the index of the decided candidate with the fewest examples; without one, of any.

    Of equals, the one with the clearest effect, then the first.
    """
    every = list(range(len(candidate_results)))
    decided = [index for index in every if candidate_results[index].decided]
    examples = {}
    for index in decided or every:
        count = candidate_results[index].examples
        examples[index] = math.inf if count is None else count
    fewest = min(examples.values())
    equals = [index for index, count in examples.items() if count == fewest]
    return max(equals, key=lambda index: (candidate_results[index].multiple, -index))


#### all measurements


def compute_measurements(
    questions: Sequence[Mapping[str, Any]],
    candidates: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    results: Results,
    units: Units = OVER_SEEDS,
) -> dict[str, Any]:
    """Return name -> value of each measurement of the self-assessment but the effect."""
    # 1. Questions: those that the numbers decide are asked.
    asked_questions = []
    names_used: set[str] = set()
    for question in questions:
        names_used |= all_names(question)
        if decide_question(question, results) is not None:
            asked_questions.append(question)
    option_counts = [len(question["options"]) for question in asked_questions]
    blind_score = sum(1 / count for count in option_counts if count) / max(len(option_counts), 1)

    # 2. Predictions.
    outcomes = []
    for prediction in predictions:
        outcomes.append(score_prediction(prediction, results[prediction["feature"]]))
    held_share = None
    if outcomes:
        held_share = outcomes.count("HELD") / len(outcomes)

    # 3. Candidates for the minimum interesting experiment.
    candidate_results = [evaluate_candidate(candidate, results) for candidate in candidates]
    index = find_minimum(candidate_results)
    minimum = candidate_results[index]
    repeats_name, costs_name = units.names

    return {
        "questions": len(asked_questions),
        "questions_left_out": len(questions) - len(asked_questions),
        "topics": len({question["topic"] for question in asked_questions}),
        "numbers_used": len(names_used),
        "blind_score": blind_score,
        "predictions": len(predictions),
        "predictions_held": outcomes.count("HELD"),
        "predictions_missed": outcomes.count("MISSED"),
        "predictions_inconclusive": outcomes.count("INCONCLUSIVE"),
        "held_share": held_share,
        "candidates": len(candidate_results),
        "candidates_decided": sum(result.decided for result in candidate_results),
        "minimum_experiment": candidates[index]["name"],
        "minimum_experiment_feature": candidates[index]["of"].split(".")[0],
        "minimum_experiment_answer": minimum.answer(candidates[index]),
        repeats_name: minimum.seeds,
        costs_name: minimum.examples,
    }
