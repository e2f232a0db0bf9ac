"""Deciding a track's questions, predictions and comparisons again, for the gates that judge them.

Works on parsed JSON: `results` is feature -> name -> measurement as result.json has it. Code of its
own; the rules are those of docs/prd-format.md (predictions) and of the fields `rule`, `of`, `cuts`
and `options` in questions.json.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from gates.shared.documents import shows

Results = dict[str, dict[str, dict[str, Any]]]

RULES = {"largest", "smallest", "bracket", "interval", "equals", "number"}
SHARE = 0.1  # of a number: what an answer may be off, where its interval is narrower
MOST_SEEDS = 1000
COUNTED = (
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
    "minimum_experiment_seeds",
    "minimum_experiment_examples",
)
EFFECT = "minimum_experiment_effect"  # passed on from the feature that measured it
FIELDS = ("id", "claim", "measurement", "comparator", "value")


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def look_up(results: Results, operation: str) -> dict[str, Any]:
    """Give {"value", "stderr", "n", "exact", "values"} of `A`, `A - B` or `A / B`."""
    words = operation.split(" ")
    assert len(words) in (1, 3), f"{operation!r} is no FEATURE.name and no operation on two of them"
    first, second = (
        (_one(results, words[0]), _one(results, words[2])) if len(words) == 3 else (None, None)
    )
    if first is None or second is None:
        return _one(results, words[0])
    a, b, ones, others = (
        first["value"],
        second["value"],
        first.get("values") or [],
        second.get("values") or [],
    )
    if not number(a) or not number(b):
        return {"value": None}
    if words[1] == "/":
        return {"value": a / b if b else None}
    assert words[1] == "-", f"{operation!r}: {words[1]!r} is neither - nor /"
    if len(ones) == len(others) > 1:
        return sample([x - y for x, y in zip(ones, others, strict=True)])
    return {"value": a - b}


def _one(results: Results, place: str) -> dict[str, Any]:
    feature, _, name = place.partition(".")
    assert name in results.get(feature, {}), f"{place} was not measured"
    return results[feature][name]


def sample(values: Sequence[float]) -> dict[str, Any]:
    """Give mean and standard error of repeated values."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return {
        "value": statistics.fmean(values),
        "stderr": error,
        "n": len(values),
        "values": list(values),
    }


def ends(met: dict[str, Any] | None, *, sampled: bool = False) -> tuple[float, float] | None:
    """Give the 95 % interval; a point for an exact value unless it must be `sampled`.

    None where nothing is known.
    """
    if met is None or not number(met.get("value")):
        return None
    if met.get("exact") and not sampled:
        return met["value"], met["value"]
    error, n = met.get("stderr"), met.get("n")
    if not number(error) or not isinstance(n, int) or n < 2:
        return None
    half = quantile(n - 1) * float(error or 0.0)
    return met["value"] - half, met["value"] + half


def quantile(df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


# Questions


def decide(question: dict[str, Any], results: Results) -> dict[str, Any] | None:
    """Give {"right"} (place in the question's own options) or {"value", "tolerance"}.

    None where it stays open.
    """
    rule, options, cuts = question["rule"], question["options"], question["cuts"]
    assert rule in RULES, f"{question['id']}: rule {rule!r}"
    if rule in ("largest", "smallest"):
        values = [look_up(results, option["of"])["value"] for option in options]
        if not all(map(number, values)):
            return None
        best = sorted(values)[-1 if rule == "largest" else 0]
        return {"right": values.index(best)} if values.count(best) == 1 else None
    met = look_up(results, question["of"])
    if rule == "equals":
        right = [
            i
            for i, o in enumerate(options)
            if o["equal"] == met["value"] and type(o["equal"]) is type(met["value"])
        ]
        return {"right": right[0]} if len(right) == 1 else None
    if not number(met["value"]):
        return None
    interval = ends(met)
    if rule == "number":
        half = (interval[1] - interval[0]) / 2 if interval else 0.0
        return {"value": met["value"], "tolerance": max(half, SHARE * abs(met["value"]))}
    points = (met["value"],) if rule == "bracket" else interval or ()
    places = {sum(point >= cut for cut in cuts) for point in points}
    return {"right": places.pop() if len(places) == 1 else len(cuts) + 1}


def deciding(question: dict[str, Any]) -> set[str]:
    """Give FEATURE.name of what a question's rule reads."""
    texts = [question["of"] or "", *(option["of"] or "" for option in question["options"])]
    return {word for text in texts for word in text.split(" ") if "." in word}


def misstated(document: dict[str, Any], results: Results) -> Iterator[str]:
    """Give a sentence for each deciding number that an explanation does not state as measured."""
    told = {item["id"]: item["explanation"] for item in document["posed"]}
    for question in document["asked"]:
        for place in sorted(deciding(question)) if question["id"] in told else ():
            feature, _, name = place.partition(".")
            _, found, rest = told[question["id"]].partition(f"{place} = ")
            if not found:
                yield f"{question['id']} does not state {place}"
            elif not shows(rest, results[feature][name]["value"]):
                yield (
                    f"{question['id']}: {place} is {results[feature][name]['value']}, stated "
                    f"as {rest[:20]!r}"
                )


# Predictions


def score(claim: dict[str, Any], measured: dict[str, dict[str, Any]]) -> str:
    """Give HELD, MISSED or INCONCLUSIVE."""
    met = measured.get(claim["measurement"])
    if claim.get("margin") is not None:
        lead = ends(measured.get(claim["margin"]), sampled=True)
        if lead is None or lead[0] <= 0:
            return "INCONCLUSIVE"
    if met is None:
        return "INCONCLUSIVE"
    comparator, wanted, value = claim["comparator"], claim["value"], met["value"]
    if comparator in ("==", "!="):
        if not met.get("exact") or value is None:
            return "INCONCLUSIVE"
        return "HELD" if _equal(value, wanted) == (comparator == "==") else "MISSED"
    interval = ends(met)
    if interval is None:
        return "INCONCLUSIVE"
    low, high = interval
    if comparator == "within":
        sides = {wanted[0] <= low and high <= wanted[1], not (high < wanted[0] or low > wanted[1])}
    else:
        sides = {_ordered(end, comparator, wanted) for end in interval}
    return "INCONCLUSIVE" if len(sides) == 2 else "HELD" if sides.pop() else "MISSED"


def _ordered(value: float, comparator: str, limit: float) -> bool:
    below, equal = value < limit, value == limit
    return {"<": below, "<=": below or equal, ">": not below and not equal, ">=": not below}[
        comparator
    ]


def _equal(met: Any, wanted: Any) -> bool:
    if number(met) and number(wanted):
        whole = isinstance(met, int) and isinstance(wanted, int)
        return bool(met == wanted) if whole else math.isclose(met, wanted, rel_tol=1e-9)
    return type(met) is type(wanted) and bool(met == wanted)


# The minimum interesting experiment


def sized(candidate: dict[str, Any], results: Results) -> dict[str, Any]:
    """Give effect, whether it is decided, and the fewest seeds and examples that would do."""
    effect = look_up(results, candidate["of"])
    interval = ends(effect, sampled=True)
    if interval is None:
        return {"effect": effect, "decided": False, "seeds": None, "examples": None}
    spread = float(effect["stderr"]) * math.sqrt(effect["n"])
    seeds = None
    for k in range(2, MOST_SEEDS + 1):
        if quantile(k - 1) * spread / math.sqrt(k) < abs(effect["value"]):
            seeds = k
            break
    examples = seeds and seeds * candidate["examples"]
    return {
        "effect": effect,
        "decided": interval[0] > 0 or interval[1] < 0,
        "seeds": seeds,
        "examples": examples,
    }


def verdict(candidate: dict[str, Any], found: dict[str, Any]) -> str:
    """Give the answer in words."""
    if not found["decided"]:
        return "these runs cannot tell"
    return str(candidate["positive" if found["effect"]["value"] > 0 else "negative"])


def minimum(found: Sequence[dict[str, Any]]) -> int:
    """Give the place of the decided one with the fewest examples.

    Of equals, the one with the clearest effect.
    """

    def clear(item: dict[str, Any]) -> float:
        effect = item["effect"]
        return float(abs(effect["value"] or 0.0) / (effect.get("stderr") or 1e-300))

    pool = [i for i, item in enumerate(found) if item["decided"]] or list(range(len(found)))
    fewest = min(math.inf if found[i]["examples"] is None else found[i]["examples"] for i in pool)
    equal = [
        i
        for i in pool
        if (math.inf if found[i]["examples"] is None else found[i]["examples"]) == fewest
    ]
    return max(equal, key=lambda i: (clear(found[i]), -i))


# Everything together


def counted(
    asked: Sequence[Any], candidates: Sequence[Any], claims: Sequence[Any], results: Results
) -> dict[str, Any]:
    """Give name -> value of each measurement of the self-assessment but the effect it passes on."""
    answers = [decide(question, results) for question in asked]
    posed = [
        question for question, answer in zip(asked, answers, strict=True) if answer is not None
    ]
    outcomes = [score(claim, results[claim["feature"]]) for claim in claims]
    found = [sized(candidate, results) for candidate in candidates]
    least = minimum(found)
    used = {name for question in asked for name in mentioned(question)}
    return {
        "questions": len(posed),
        "questions_left_out": len(asked) - len(posed),
        "topics": len({question["topic"] for question in posed}),
        "numbers_used": len(used),
        "blind_score": sum(1 / len(q["options"]) for q in posed if q["options"])
        / max(len(posed), 1),
        "predictions": len(claims),
        "predictions_held": outcomes.count("HELD"),
        "predictions_missed": outcomes.count("MISSED"),
        "predictions_inconclusive": outcomes.count("INCONCLUSIVE"),
        "held_share": outcomes.count("HELD") / len(outcomes) if outcomes else None,
        "candidates": len(found),
        "candidates_decided": sum(item["decided"] for item in found),
        "minimum_experiment": candidates[least]["name"],
        "minimum_experiment_feature": candidates[least]["of"].split(".")[0],
        "minimum_experiment_answer": verdict(candidates[least], found[least]),
        "minimum_experiment_seeds": found[least]["seeds"],
        "minimum_experiment_examples": found[least]["examples"],
    }


def mentioned(question: dict[str, Any]) -> set[str]:
    """Give FEATURE.name of what a question reads or shows."""
    texts = [question["ask"], question["why"]]
    texts += [text for option in question["options"] for text in (option["label"], option["why"])]
    shown = {piece.split("}")[0] for text in texts for piece in text.split("{")[1:]}
    return deciding(question) | shown
